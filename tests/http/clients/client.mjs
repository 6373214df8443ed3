// Two requests of one of Node's clients, one after the other: prints what each came to.
//
//     node client.mjs http|fetch URL

import { Agent, get } from "node:http";

const agent = new Agent({ keepAlive: true, maxSockets: 1 });

function byHttp(url) {
  return new Promise((resolve) => {
    const request = get(url, { agent }, (response) => {
      let body = "";
      response.on("data", (data) => (body += data));
      response.on("end", () => resolve(`${response.statusCode} ${body}`));
      response.on("error", (error) => resolve(String(error)));
    });
    request.on("error", (error) => resolve(String(error)));
  });
}

async function byFetch(url) {
  try {
    const response = await fetch(url);
    return `${response.status} ${await response.text()}`;
  } catch (error) {
    return `${error.message}: ${error.cause?.message}`;
  }
}

const [kind, url] = process.argv.slice(2);
const ask = kind === "fetch" ? byFetch : byHttp;
const came = [await ask(url)];
// A freed socket is the agent's again only a turn later.
await new Promise((resolve) => setImmediate(resolve));
came.push(await ask(url));
console.log(JSON.stringify(came));
process.exit(0);
