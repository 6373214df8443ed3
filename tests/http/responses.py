"""Reads one HTTP response from a socket, and says whether it was whole."""

import time
from dataclasses import dataclass, field


@dataclass
class Response:
    """What came: interim statuses, then the final one with its body."""

    interims: list = field(default_factory=list)
    status: int | None = None
    body: bytes = b""
    fault: str | None = None

    def whole(self):
        return self.status is not None and self.fault is None


class Ended(Exception):
    pass


class Reader:
    def __init__(self, client, seconds):
        self.client, self.until = client, time.monotonic() + seconds
        self.held = b""

    def more(self):
        left = self.until - time.monotonic()
        if left <= 0:
            raise Ended("no answer in time")
        self.client.settimeout(left)
        try:
            data = self.client.recv(65536)
        except TimeoutError:
            raise Ended("no answer in time") from None
        except OSError as error:
            raise Ended(error.strerror or str(error)) from None
        if not data:
            raise Ended("the connection ended")
        self.held += data

    def until_mark(self, mark):
        while mark not in self.held:
            self.more()
        before, _, self.held = self.held.partition(mark)
        return before

    def exactly(self, size):
        while len(self.held) < size:
            self.more()
        data, self.held = self.held[:size], self.held[size:]
        return data

    def to_the_end(self):
        try:
            while True:
                self.more()
        except Ended as ended:
            if str(ended) != "the connection ended":
                raise
        data, self.held = self.held, b""
        return data


def read_response(client, seconds):
    response = Response()
    reader = Reader(client, seconds)
    try:
        while True:
            status, fields = read_head(reader)
            if status // 100 != 1:
                break
            response.interims.append(status)
        response.status = status
        if fields.get("transfer-encoding") == "chunked":
            read_chunks(reader, response)
        elif "content-length" in fields:
            response.body = reader.exactly(int(fields["content-length"]))
        else:
            response.body = reader.to_the_end()
    except (Ended, ValueError) as error:
        response.fault = str(error)
    return response


def read_head(reader):
    line, *rest = reader.until_mark(b"\r\n\r\n").decode("latin-1").split("\r\n")
    if not line.startswith("HTTP/1."):
        raise ValueError(f"not a response: {line[:40]!r}")
    fields = {name.lower(): value.strip().lower() for name, _, value in (r.partition(":") for r in rest)}
    return int(line.split(" ")[1]), fields


def read_chunks(reader, response):
    while True:
        size = int(reader.until_mark(b"\r\n"), 16)
        response.body += reader.exactly(size)
        if reader.exactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where it should")
        if size == 0:
            return
