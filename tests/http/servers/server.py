"""The ASGI server under test: uvicorn, its handlers told of the leaving by `http.disconnect`.

    server.py ADDRESS h11|httptools

Every handler reports on standard output, one JSON line for each thing that happens, with the
monotonic clock's nanoseconds of that moment.
"""

import asyncio
import json
import os
import socket
import sys
import time
from urllib.parse import parse_qs

import uvicorn


def report(event, **fields):
    fields |= {"event": event, "ns": time.monotonic_ns()}
    os.write(1, json.dumps(fields).encode() + b"\n")


async def read_body(receive):
    """The whole body; None if the client left before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def disconnected(receive):
    # ASGI has one stream for the body and for the leaving: waiting for the one drops the other.
    while (await receive())["type"] != "http.disconnect":
        pass


async def start(send, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def answer_late(case, ms, receive, send, body):
    report("began", id=case)
    leaving = asyncio.create_task(disconnected(receive))
    done, _ = await asyncio.wait({leaving}, timeout=ms / 1000)
    if done:
        report("left", id=case)
        return
    leaving.cancel()
    report("finished", id=case)
    await start(send, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


async def slow(scope, case, ms, receive, send):
    await answer_late(case, ms, receive, send, b"worked\n")


async def slow_read(scope, case, ms, receive, send):
    if await read_body(receive) is None:
        report("left", id=case)
    else:
        await slow(scope, case, ms, receive, send)


async def echo(scope, case, ms, receive, send):
    """Works for a while at what it has read, and answers with it."""
    body = await read_body(receive)
    if body is None:
        report("left", id=case)
        return
    target = scope["raw_path"] + b"?" + scope["query_string"]
    await answer_late(case, ms, receive, send, b" ".join([scope["method"].encode(), target, body]))


async def quick(scope, case, ms, receive, send):
    await start(send, (b"content-length", b"1024"))
    await send({"type": "http.response.body", "body": b"q" * 1024})


async def chunked(scope, case, ms, receive, send):
    report("began", id=case)
    leaving = asyncio.create_task(disconnected(receive))
    await start(send)
    pieces = ms // 100 + 1
    for piece in range(pieces):
        await send({"type": "http.response.body", "body": b"piece %d\n" % piece, "more_body": True})
        if piece == pieces - 1:
            break
        done, _ = await asyncio.wait({leaving}, timeout=0.1)
        if done:
            report("left", id=case)
            return
    leaving.cancel()
    report("finished", id=case)
    await send({"type": "http.response.body", "body": b"end\n"})


async def pausing(scope, case, ms, receive, send):
    report("began", id=case)
    leaving = asyncio.create_task(disconnected(receive))
    await start(send)
    await send({"type": "http.response.body", "body": b"piece 0\n", "more_body": True})
    done, _ = await asyncio.wait({leaving}, timeout=ms / 1000)
    leaving.cancel()
    report("left" if done else "finished", id=case)
    if not done:
        await send({"type": "http.response.body", "body": b"end\n"})


HANDLERS = {
    "/slow": (slow, 4000),
    "/slow-unread": (slow, 4000),
    "/slow-read": (slow_read, 4000),
    "/echo": (echo, 1500),
    "/quick": (quick, 0),
    "/chunked": (chunked, 0),
    "/pausing": (pausing, 4000),
}


async def app(scope, receive, send):
    handler, otherwise = HANDLERS[scope["path"]]
    query = parse_qs(scope["query_string"].decode())
    ms = int(query.get("ms", [otherwise])[0])
    await handler(scope, query.get("id", [""])[0], ms, receive, send)


def main():
    address, parser = sys.argv[1:]
    listener = socket.create_server((address, 0))
    config = uvicorn.Config(app, http=parser, lifespan="off", log_level="critical", access_log=False)
    report("listening", port=listener.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
