#!/usr/bin/env python3
"""Ambiguous requests through deadpeer's proxy and directly, to servers of other makes: do both count the same?

    python3 tests/http/smuggling.py            # a minute, a Markdown table on stdout
    python3 tests/http/smuggling.py --check

A hostile client sends an ambiguous request that has another one hidden in it, and a plain one behind it. Each handler tells
which requests it got, and answers with what it was asked. Then:

- Of a connection that deadpeer follows to its end, the server got no request that deadpeer does not log, and none that deadpeer
  logs as answered is missing. The answer to a request that deadpeer has not seen could become anybody's.
- From the point at which it does not follow a connection, nothing is claimed; but other clients, which ask meanwhile, get
  their own answers, also on upstream connections that were used before.
- With --strict, and with --forwarded, nothing that is ambiguous reaches the server.
"""

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fronts import free_port
from serving import TARGET, Missing, Reporter, Server

HOST = "127.0.0.1"
NGINX = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format id '{{"event":"began","id":"$arg_id"}}';
    access_log /dev/stdout id;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://unix:{folder}/behind; proxy_http_version 1.1; }}
    }}
    server {{
        listen unix:{folder}/behind;
        access_log off;
        location / {{ return 200 "$request_method $request_uri "; }}
    }}
}}
"""


class NginxServer(Reporter):
    """nginx as a server: it reads each body, since it passes it on, and logs each request."""

    def __init__(self):
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if not program:
            raise Missing("no nginx: install nginx-light")
        self.folder = tempfile.TemporaryDirectory()
        self.port, self.name = free_port(HOST, ()), "nginx"
        file = Path(self.folder.name, "conf")
        file.write_text(NGINX.format(folder=self.folder.name, port=self.port))
        super().__init__([program, "-c", str(file), "-e", "stderr"])
        until = time.monotonic() + 5
        while time.monotonic() < until:
            try:
                return socket.create_connection((HOST, self.port), 1).close()
            except OSError:
                time.sleep(0.02)
        raise Missing("nginx does not listen")


def hidden(case):
    return b"POST /echo?id=%s-hidden&ms=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nh" % case


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def post(case, fields, body=b""):
    return b"POST /echo?id=%s&ms=1 HTTP/1.1\r\nHost: a\r\n%s\r\n%s" % (case, fields, body)


def cl(text):
    return b"Content-Length: %s\r\n" % text


def te(text):
    return b"Transfer-Encoding: %s\r\n" % text


def with_both(name, first, second):
    """A length and a coding, or two lengths, of which one hides the request and the other does not."""
    return name, lambda case: post(case, first(case) + second(case), b"0\r\n\r\n" + hidden(case))


LONG = lambda case: cl(b"%d" % (5 + len(hidden(case))))
SHORT = lambda case: cl(b"5")


def coding(text):
    return lambda case: te(text)


def line(text):
    """A request line or a field in place of the ordinary one."""
    return lambda case: text.replace(b"CASE", case) + hidden(case)


def chunks(name, *pieces):
    def build(case):
        body = b"".join(piece(case) if callable(piece) else piece for piece in pieces)
        return post(case, te(b"chunked"), body)

    return name, build


GET = b"GET /echo?id=CASE&ms=1 HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /echo?id=CASE&ms=1 HTTP/1.1\r\nHost: a\r\n"
CODINGS = [
    b"chunked", b" chunked", b"chunked ", b"\tchunked", b"Chunked", b"chunked, identity", b"identity, chunked", b"identity", b"xchunked",
    b"chunked, chunked", b"gzip, chunked", b'"chunked"', b"chunked;q=1", b"chunk", b"\x0bchunked", b"chunked\x0b", b",chunked", b"",
]
CASES = [
    ("a plain length", lambda case: post(case, cl(b"5"), b"abcde")),
    ("a plain body of chunks", lambda case: post(case, te(b"chunked"), chunk(b"abcde") + b"0\r\n\r\n")),
    ("pipelined requests", lambda case: hidden(case) + post(case, cl(b"5"), b"abcde")),
    ("a request as a body", lambda case: post(case, cl(b"%d" % len(hidden(case))), hidden(case))),
    ("a request in a chunk", lambda case: post(case, te(b"chunked"), chunk(hidden(case)) + b"0\r\n\r\n")),
    *(with_both(f"CL.TE, coding {text!r}", LONG, coding(text)) for text in CODINGS),
    *(with_both(f"TE.CL, coding {text!r}", coding(text), SHORT) for text in CODINGS),
    *((f"TE alone, coding {text!r}", lambda case, text=text: post(case, te(text), b"0\r\n\r\n" + hidden(case))) for text in CODINGS),
    with_both("two lengths, the longer first", LONG, SHORT),
    with_both("two lengths, the shorter first", SHORT, LONG),
    with_both("the same length twice", SHORT, SHORT),
    *((f"a length of {text!r}", lambda case, text=text: post(case, cl(text), b"0\r\n\r\n" + hidden(case)))
      for text in [b"+5", b"-5", b" 5", b"5 ", b"\t5", b"05", b"0x5", b"5,5", b"5, 6", b"5 5", b"5;", b"5.0", b"", b"5_0", b"\xb25", b"18446744073709551621"]),
    ("a blank before the colon of a length", lambda case: post(case, b"Content-Length : 5\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a tab before the colon of a coding", lambda case: post(case, cl(b"5") + b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a blank before a length", lambda case: post(case, b" Content-Length: 5\r\n", b"0\r\n\r\n" + hidden(case))),
    ("an underscore for a hyphen", lambda case: post(case, cl(b"5") + b"Transfer_Encoding: chunked\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a NUL in a coding's name", lambda case: post(case, cl(b"5") + b"Transfer-\0Encoding: chunked\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a NUL in a value", lambda case: post(case, cl(b"5") + b"X: a\0b\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a byte beyond ASCII in a name", lambda case: post(case, cl(b"5") + b"Transfer-Encoding\xa0: chunked\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a folded coding", lambda case: post(case, LONG(case) + b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a folded length", lambda case: post(case, b"Content-Length:\r\n 5\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a length in a folded line", lambda case: post(case, b"X: a\r\n Content-Length: 5\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a bare LF behind a field", lambda case: post(case, b"X: a\nContent-Length: 5\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a bare CR in a field", lambda case: post(case, b"X: a\rContent-Length: 5\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a bare LF for the end of the head", lambda case: (POST + b"Content-Length: 5\r\n\n").replace(b"CASE", case) + b"0\r\n\r\n" + hidden(case)),
    ("bare LFs throughout", lambda case: (POST + b"Content-Length: 5\r\n\r\n").replace(b"CASE", case).replace(b"\r", b"") + b"0\r\n\r\n" + hidden(case)),
    ("CR CR LF", lambda case: post(case, b"X: a\r\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a field without a colon", lambda case: post(case, cl(b"5") + b"Transfer-Encoding chunked\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a field without a name", lambda case: post(case, cl(b"5") + b": chunked\r\n", b"0\r\n\r\n" + hidden(case))),
    ("a GET with a length", lambda case: (GET + b"Content-Length: %d\r\n\r\n" % len(hidden(case))).replace(b"CASE", case) + hidden(case)),
    ("a GET with chunks", lambda case: (GET + te(b"chunked") + b"\r\n").replace(b"CASE", case) + b"0\r\n\r\n" + hidden(case)),
    ("HTTP/1.0 with chunks", lambda case: post(case, te(b"chunked") + b"Connection: keep-alive\r\n", b"0\r\n\r\n" + hidden(case)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    ("HTTP/1.0 with both", lambda case: post(case, LONG(case) + te(b"chunked") + b"Connection: keep-alive\r\n", b"0\r\n\r\n" + hidden(case)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    ("HTTP/1.2", line(GET.replace(b"1.1", b"1.2") + b"\r\n")),
    ("HTTP/2.0 in a line", line(GET.replace(b"1.1", b"2.0") + b"\r\n")),
    ("http/1.1 in small letters", line(GET.replace(b"HTTP", b"http") + b"\r\n")),
    ("two blanks in the line", line(GET.replace(b" HTTP", b"  HTTP") + b"\r\n")),
    ("a tab in the line", line(GET.replace(b" HTTP", b"\tHTTP") + b"\r\n")),
    ("a blank in the target", line(GET.replace(b"ms=1", b"ms=1 x") + b"\r\n")),
    ("a blank behind the line", line(GET.replace(b"1.1\r", b"1.1 \r") + b"\r\n")),
    ("an absolute target", line(GET.replace(b"/echo", b"http://a/echo") + b"\r\n")),
    ("an absolute target and another Host", line(GET.replace(b"/echo", b"http://b/echo") + b"\r\n")),
    ("a fragment in the target", line(GET.replace(b"ms=1", b"ms=1&x=#x") + b"\r\n")),
    ("bytes beyond ASCII in the target", line(GET.replace(b"ms=1", b"ms=1&x=\xff\xfe") + b"\r\n")),
    ("a request line of HTTP/0.9", line(b"GET /echo?id=CASE&ms=1\r\n")),
    ("empty lines before the request", line(b"\r\n\r\n" + GET + b"\r\n")),
    ("a blank line's LF before the request", line(b"\n" + GET + b"\r\n")),
    ("no Host", line((GET + b"\r\n").replace(b"Host: a\r\n", b""))),
    ("two Hosts", line(GET + b"Host: b\r\n\r\n")),
    ("Connection: Content-Length", lambda case: post(case, cl(b"5") + b"Connection: Content-Length\r\n", b"0\r\n\r\n" + hidden(case))),
    ("Connection: close, and more", lambda case: post(case, cl(b"5") + b"Connection: close\r\n", b"abcde" + hidden(case))),
    ("an Upgrade that no server grants", line(GET + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n")),
    ("h2c", line(GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")),
    ("Expect, and the body at once", lambda case: post(case, cl(b"5") + b"Expect: 100-continue\r\n", b"0\r\n\r\n" + hidden(case))),
    ("Expect of nonsense", lambda case: post(case, cl(b"5") + b"Expect: 100-continued\r\n", b"0\r\n\r\n" + hidden(case))),
    chunks("a chunk extension", b"5;a=b\r\nabcde\r\n0\r\n\r\n", hidden),
    chunks("a chunk extension with a quoted CR LF", b'5;a="\r\n\r\n"\r\nabcde\r\n0\r\n\r\n', hidden),
    chunks("a chunk extension that ends in a bare LF", b"5;a\nabcde\r\n0\r\n\r\n", hidden),
    chunks("a chunk extension that hides a size", b"2;\nxx\r\n32\r\n0\r\n\r\n", hidden),
    chunks("a chunk size that ends in a bare LF", b"5\nabcde\r\n0\r\n\r\n", hidden),
    chunks("a chunk that ends in a bare LF", b"5\r\nabcde\n0\r\n\r\n", hidden),
    chunks("a chunk without an end", b"5\r\nabcde0\r\n\r\n", hidden),
    chunks("a chunk longer than its size", b"3\r\nabcde\r\n0\r\n\r\n", hidden),
    chunks("a last chunk with bare LFs", b"5\r\nabcde\r\n0\n\n", hidden),
    chunks("a last chunk of zeros", b"5\r\nabcde\r\n0000\r\n\r\n", hidden),
    chunks("a last chunk with an extension", b"5\r\nabcde\r\n0;x\r\n\r\n", hidden),
    *(chunks(f"a chunk size of {text!r}", text + b"\r\nabcde\r\n0\r\n\r\n", hidden)
      for text in [b"0x5", b"+5", b"-5", b" 5", b"5 ", b"5\t", b"05", b"0000000000000005", b"00000000000000005", b"10000000000000005", b"5_", b"\x0c5", b"5\0", b""]),
    chunks("a trailer", b"0\r\nX: a\r\n\r\n", hidden),
    chunks("a trailer that is a length", b"0\r\nContent-Length: 100\r\n\r\n", hidden),
    chunks("a trailer that is a request", b"0\r\nGET / HTTP/1.1\r\nX: a\r\n\r\n", hidden),
    chunks("a trailer with a bare LF", b"0\r\nX: a\n\r\n", hidden),
    chunks("a folded trailer", b"0\r\nX: a\r\n b\r\n\r\n", hidden),
]


def plain(case):
    return b"GET /echo?id=%s&ms=1 HTTP/1.1\r\nHost: a\r\n\r\n" % case


def attack(address, wire, last, patience=0.25):
    """Sends all of it, and reads until the last answer, or until nothing more comes. Returns the client's address."""
    got, own = b"", None
    try:
        with socket.create_connection(address, 5) as client:
            own = "%s:%d" % client.getsockname()
            client.settimeout(patience)
            client.sendall(wire)
            while last not in got and (more := client.recv(65536)):
                got += more
    except OSError:
        pass
    return own


class Victim:
    """An innocent client on a connection of its own."""

    def __init__(self, address):
        self.client = socket.create_connection(address, 5)
        self.number = 0

    def ask(self, name):
        """What it got that was not its own, if it did."""
        self.number += 1
        case = b"%s-%d" % (name, self.number)
        self.client.sendall(plain(case))
        got = b""
        while b"\r\n\r\n" not in got or case not in got:
            more = self.client.recv(65536)
            if not more:
                return f"nothing, behind {got!r}"
            got += more
            if got.count(b"HTTP/1.1 ") > 1 or not got.startswith(b"HTTP/1.1 200"):
                return repr(got)
        time.sleep(0.002)
        return None


class Proxy:
    """deadpeer before one server, and its log."""

    def __init__(self, program, server, words):
        self.folder = tempfile.TemporaryDirectory()
        self.log = Path(self.folder.name, "log")
        command = [program, "proxy", "--listen", f"{HOST}:0", "--drain", "0s", "--threads", "1",
                   "--upstream", f"{HOST}:{server.port}", "--events", "-", "--access-log", str(self.log),
                   "--access-format", "json", *words]
        self.reporter = Reporter(command, quiet=False)
        port = self.reporter.listening("deadpeer proxy")["address"].rpartition(":")[2]
        self.address = (HOST, int(port))

    def end(self):
        self.reporter.end()
        lines = [json.loads(text) for text in self.log.read_text().splitlines()]
        self.folder.cleanup()
        return lines


def ids(server, case):
    """The requests of a case that the server's handlers got."""
    name = case.decode()
    return sorted(line["id"] for line in list(server.lines)
                  if line.get("event") == "began" and line.get("id", "").startswith(name))


def run(server, options):
    """All cases before one server: rows of counts, and what was wrong."""
    faults = []
    counts = {"followed": 0, "not followed": 0}
    for words in ([], ["--strict"], ["--pool", "0"]):
        proxy = Proxy(options.deadpeer, server, words)
        victims = [Victim(proxy.address) for _ in range(2)]
        found = {}
        for number, (name, build) in enumerate(CASES):
            case = b"c%d-%d" % (time.monotonic_ns(), number)
            client = attack(proxy.address, build(case) + plain(case + b"-behind"), case + b"-behind")
            for victim in victims:
                got = victim.ask(b"v%d" % number)
                if got:
                    faults.append(f"{server.name} {' '.join(words)}: {name}: another client got {got[:200]}")
                    victim.__init__(proxy.address)
            found[case] = (name, client)
        lines = proxy.end()
        unfollowed = {line["client"] for line in proxy.reporter.lines if line["event"] == "not_followed"}
        for case, (name, client) in found.items():
            got = ids(server, case)
            own = [line for line in lines if case.decode() in (line.get("target") or "")]
            name_of = lambda line: line["target"].partition("id=")[2].partition("&")[0]
            seen = Counter(name_of(line) for line in own)
            answered = Counter(name_of(line) for line in own if line.get("status") == 200)
            followed = client not in unfollowed
            counts["followed" if followed else "not followed"] += not words
            if (followed or "--strict" in words) and (Counter(got) - seen or answered - Counter(got)):
                faults.append(f"{server.name} {' '.join(words)}: {name}: the server got {got}, deadpeer {answered} of {seen}")
    return counts, faults


def before(name, options):
    server = NginxServer() if name == "nginx" else Server(name)
    try:
        return run(server, options)
    finally:
        server.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deadpeer", default=str(TARGET / "release" / "deadpeer"), metavar="PATH")
    parser.add_argument("--servers", type=lambda text: text.split(","), default=["go", "node", "uvicorn", "nginx"])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    wrong, missing = [], 0
    print(f"| server | {len(CASES)} requests: followed | not followed | differences |\n|---|---:|---:|---:|")
    with ThreadPoolExecutor(len(options.servers)) as pool:
        running = [(name, pool.submit(before, name, options)) for name in options.servers]
        for name, one in running:
            try:
                counts, faults = one.result()
            except Missing as why:
                print(f"skipped: {name}: {why}", file=sys.stderr)
                missing += 1
                continue
            print(f"| {name} | {counts['followed']} | {counts['not followed']} | {len(faults)} |", flush=True)
            wrong += faults
    for fault in wrong:
        print(fault, file=sys.stderr)
    sys.exit(1 if options.check and (wrong or missing) else 0)


if __name__ == "__main__":
    main()
