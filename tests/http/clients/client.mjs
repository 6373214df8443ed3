// Two requests of one of Node's clients, one after the other: prints what each came to.
//
//     node client.mjs http|fetch URL [FILE [expect]]
//
// With a file they post it; node:http may ask first whether it should.

import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";

const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const [kind, url, file, expect] = process.argv.slice(2);
const body = file && readFileSync(file);
const method = body ? "POST" : "GET";

function byHttp() {
  return new Promise((resolve) => {
    const headers = body ? { "Content-Length": body.length } : {};
    if (expect) headers.Expect = "100-continue";
    const asking = request(url, { agent, method, headers }, (response) => {
      let came = "";
      response.on("data", (data) => (came += data));
      response.on("end", () => resolve(`${response.statusCode} ${came}`));
      response.on("error", (error) => resolve(String(error)));
    });
    asking.on("error", (error) => resolve(String(error)));
    if (expect) {
      asking.on("continue", () => asking.end(body));
      asking.flushHeaders();
    } else {
      asking.end(body);
    }
  });
}

async function byFetch() {
  try {
    const response = await fetch(url, { method, body });
    return `${response.status} ${await response.text()}`;
  } catch (error) {
    return `${error.message}: ${error.cause?.message}`;
  }
}

const ask = kind === "fetch" ? byFetch : byHttp;
const came = [await ask()];
// A freed socket is the agent's again only a turn later.
await new Promise((resolve) => setImmediate(resolve));
came.push(await ask());
// What is written to a pipe is not there yet when `write` returns.
process.stdout.write(JSON.stringify(came) + "\n", () => process.exit(0));
