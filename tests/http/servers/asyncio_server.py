"""A server of asyncio's protocols and nothing else: it reads on while its handler works.

    asyncio_server.py ADDRESS

It speaks as much HTTP as the driver needs. Every handler reports on standard output, one JSON line
for each thing that happens, with the monotonic clock's nanoseconds of that moment.
"""

import asyncio
import json
import os
import sys
import time
from urllib.parse import parse_qs, urlsplit


def report(event, **fields):
    fields |= {"event": event, "ns": time.monotonic_ns()}
    os.write(1, json.dumps(fields).encode() + b"\n")


class Connection(asyncio.Protocol):
    """One client: a request at a time, what comes meanwhile is kept."""

    def connection_made(self, transport):
        self.transport = transport
        self.unread = b""
        self.work = None
        self.case = None

    def data_received(self, data):
        self.unread += data
        self.begin()

    def eof_received(self):
        return False  # asyncio's own way: a client that sends no more is gone

    def connection_lost(self, error):
        if self.work:
            self.work.cancel()
            if self.case:
                report("left", id=self.case)

    def begin(self):
        head, found, rest = self.unread.partition(b"\r\n\r\n")
        if self.work or not found:
            return
        line, *headers = head.decode().split("\r\n")
        method, target, version = line.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in headers)}
        length = int(fields.get("content-length", 0))
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        # The body is read and counted, unless the request asks not to wait for it.
        if path != "/slow-unread" and len(rest) < length:
            return
        self.unread = rest[length:]
        keep = version == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
        self.work = asyncio.create_task(self.answer(path, query, keep))

    async def answer(self, path, query, keep):
        case = query.get("id", [""])[0]
        ms = int(query.get("ms", [0 if path in ("/quick", "/chunked") else 4000])[0])
        ending = b"" if keep else b"connection: close\r\n"
        if path == "/quick":
            self.write_whole(b"q" * 1024, ending)
        else:
            self.case = case
            report("began", id=case)
            answers = {"/chunked": self.chunked, "/pausing": self.pausing}
            await answers.get(path, self.slow)(ms, ending)
        self.work = self.case = None
        if keep:
            self.begin()
        else:
            self.transport.close()

    def write_whole(self, body, ending):
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n%s" % (len(body), ending, body))

    async def slow(self, ms, ending):
        await asyncio.sleep(ms / 1000)
        report("finished", id=self.case)
        self.write_whole(b"worked\n", ending)

    async def chunked(self, ms, ending):
        self.transport.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n%s\r\n" % ending)
        for piece in range(ms // 100 + 1):
            if piece:
                await asyncio.sleep(0.1)
            self.write_chunk(b"piece %d\n" % piece)
        report("finished", id=self.case)
        self.write_chunk(b"end\n")
        self.transport.write(b"0\r\n\r\n")

    async def pausing(self, ms, ending):
        self.transport.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n%s\r\n" % ending)
        self.write_chunk(b"piece 0\n")
        await asyncio.sleep(ms / 1000)
        report("finished", id=self.case)
        self.write_chunk(b"end\n")
        self.transport.write(b"0\r\n\r\n")

    def write_chunk(self, data):
        self.transport.write(b"%x\r\n%s\r\n" % (len(data), data))


async def main():
    server = await asyncio.get_running_loop().create_server(Connection, sys.argv[1], 0)
    report("listening", port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
