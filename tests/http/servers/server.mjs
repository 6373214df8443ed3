// The Node server under test: node:http as it comes, its handlers told of the leaving by the
// response's 'close' before its end.
//
//     node server.mjs ADDRESS
//
// Every handler reports on standard output, one JSON line for each thing that happens, with the
// monotonic clock's nanoseconds of that moment.

import { writeSync } from "node:fs";
import { createServer } from "node:http";

// As text: a number of JavaScript's has not the digits.
function report(event, fields) {
  const ns = process.hrtime.bigint().toString();
  writeSync(1, JSON.stringify({ event, ...fields, ns }) + "\n");
}

// Begins to work, and gives what ends it: true if the client is still there.
function working(id, response) {
  report("began", { id });
  let ended = false;
  response.on("close", () => {
    if (!ended) {
      ended = true;
      report("left", { id });
    }
  });
  return () => {
    if (ended) return false;
    ended = true;
    report("finished", { id });
    return true;
  };
}

function slow(id, ms, request, response) {
  const finish = working(id, response);
  const timer = setTimeout(() => finish() && response.end("worked\n"), ms);
  response.on("close", () => clearTimeout(timer));
}

function slowRead(id, ms, request, response) {
  request.resume();
  request.on("end", () => slow(id, ms, request, response));
}

// Works for a while at what it has read, and answers with it.
function echo(id, ms, request, response) {
  let body = "";
  request.on("data", (data) => (body += data));
  request.on("end", () => {
    const finish = working(id, response);
    const answer = () => finish() && response.end(`${request.method} ${request.url} ${body}`);
    const timer = setTimeout(answer, ms);
    response.on("close", () => clearTimeout(timer));
  });
}

function chunked(id, ms, request, response) {
  const finish = working(id, response);
  const last = Math.floor(ms / 100);
  let piece = 0;
  const timer = setInterval(next, 100);
  response.on("close", () => clearInterval(timer));
  function next() {
    response.write(`piece ${piece}\n`);
    if (piece++ === last) {
      clearInterval(timer);
      if (finish()) response.end("end\n");
    }
  }
  next();
}

// Answers in two pieces, with a silence between them.
function pausing(id, ms, request, response) {
  response.write("piece 0\n");
  const finish = working(id, response);
  const timer = setTimeout(() => finish() && response.end("end\n"), ms);
  response.on("close", () => clearTimeout(timer));
}

function quick(id, ms, request, response) {
  response.end("q".repeat(1024));
}

const handlers = {
  "/slow": [slow, 4000],
  "/slow-unread": [slow, 4000],
  "/slow-read": [slowRead, 4000],
  "/echo": [echo, 1500],
  "/quick": [quick, 0],
  "/chunked": [chunked, 0],
  "/pausing": [pausing, 4000],
};

const server = createServer((request, response) => {
  const url = new URL(request.url, "http://server");
  const [handler, otherwise] = handlers[url.pathname];
  const ms = Number(url.searchParams.get("ms") ?? otherwise);
  handler(url.searchParams.get("id") ?? "", ms, request, response);
});
server.listen(0, process.argv[2], () => report("listening", { port: server.address().port }));
