"""The ways in which a client leaves a server that works for it, and those in which it only waits."""

import socket
import struct
import time
from dataclasses import dataclass
from typing import Callable

SMALL = 2 << 10
LARGE = 256 << 10


def ask(method, path, version="1.1", size=0):
    """What writes a request for a case: `path` takes the case's name and milliseconds."""

    def write(case, ms):
        head = f"{method} {path}?id={case}&ms={ms} HTTP/{version}\r\nHost: server\r\n"
        if size:
            head += f"Content-Length: {size}\r\n"
        return head.encode() + b"\r\n" + b"b" * size

    return write


def fin(client):
    left = time.monotonic_ns()
    client.close()
    return left


def rst(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left = time.monotonic_ns()
    client.close()
    return left


def half_close_then_rst(client):
    client.shutdown(socket.SHUT_WR)
    time.sleep(0.3)
    return rst(client)


def byte_then_fin(client):
    client.send(b"G")
    time.sleep(0.05)
    return fin(client)


def request_then_fin(client):
    client.send(ask("GET", "/quick")("next", 0))
    time.sleep(0.05)
    return fin(client)


def drained_then(leave):
    """What was answered is read first: closing over unread bytes would be a reset."""

    def drain_and_leave(client):
        client.setblocking(False)
        try:
            while client.recv(65536):
                pass
        except BlockingIOError:
            pass
        return leave(client)

    return drain_and_leave


@dataclass
class Way:
    """One way. `leave` gives the moment of the leaving; without it, the client says no more and waits."""

    name: str
    request: Callable
    leave: Callable | None = None
    quick: bool = False
    version: str = "1.1"
    unread: int = 0

    @property
    def path(self):
        return self.request("", 0).split()[1].decode().partition("?")[0]


GET = ask("GET", "/slow")
GET_10 = ask("GET", "/slow", "1.0")
STREAM = ask("GET", "/chunked")
PAUSE = ask("GET", "/pausing")
UNREAD = ask("POST", "/slow-unread", size=SMALL)
UNREAD_LARGE = ask("POST", "/slow-unread", size=LARGE)
READ = ask("POST", "/slow-read", size=SMALL)

WAYS = [
    Way("FIN", GET, fin, quick=True),
    Way("RST", GET, rst, quick=True),
    Way("half-close, RST 300 ms later", GET, half_close_then_rst, quick=True),
    Way("one pipelined byte, FIN", GET, byte_then_fin, quick=True),
    Way("a pipelined request, FIN", GET, request_then_fin),
    Way("body read, FIN", READ, fin),
    Way("body read, RST", READ, rst),
    Way("body of 2 KiB unread, FIN", UNREAD, fin, unread=SMALL),
    Way("body of 2 KiB unread, RST", UNREAD, rst, unread=SMALL, quick=True),
    Way("body of 256 KiB unread, FIN", UNREAD_LARGE, fin, unread=LARGE),
    Way("body of 256 KiB unread, RST", UNREAD_LARGE, rst, unread=LARGE),
    Way("FIN amid a chunked answer", STREAM, drained_then(fin)),
    Way("RST amid a chunked answer", STREAM, rst),
    Way("FIN in a silent stream", PAUSE, drained_then(fin), quick=True),
    Way("HTTP/1.0: FIN", GET_10, fin, quick=True, version="1.0"),
    Way("half-close, waits", GET, quick=True),
    Way("half-close after a body, waits", READ),
    Way("half-close amid a chunked answer, waits", STREAM),
    Way("half-close in a silent stream, waits", PAUSE, quick=True),
    Way("HTTP/1.0: half-close, waits", GET_10, version="1.0"),
]

SILENCE = Way("silent loss", GET)
