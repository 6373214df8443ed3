#!/usr/bin/env python3
"""Whether anybody gets what is somebody else's: connections to the upstream are shared, and everything goes wrong on them.

    python3 tests/http/mixing.py                              # the engines and a few options, 5 s each
    python3 tests/http/mixing.py --check --seconds 2          # as .ci/run does
    python3 tests/http/mixing.py --seed 7 --only epoll

Ten clients send requests of all kinds, pipeline, half-close and leave at any byte. The server misbehaves as each target says:
bytes behind a response, a close announced or not, in the middle or at once, resets, early and interim responses, HTTP/1.0. Each
request has an identity, which its body, its response and the server's records repeat. A fault is a response or a body with the
identity of another request, a POST that the server got twice, any request that it got more than twice, a client that waits in
vain, and a connection that the proxy still counts at its end.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time

from serving import TARGET, end

WAYS = ("ok ok ok ok chunked stray announced closes torn broken 204 304 interim old persistent silent reset slow long "
        "after early").split()
STRAY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"
LAST_CHUNK = b"0\r\nX: last\r\n\r\n"
CLIENTS = 10
PATIENCE = 8

RUNS = [
    ("uring", "", 1),
    ("epoll", "", 1),
    ("uring", "--upstream-limit 1", 1),
    ("epoll", "--upstream-limit 2", 2),
    ("uring", "--pool 3 --strict", 2),
    ("uring", "--forwarded append --request-buffer 0", 2),
]


def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


class Faults(list):
    def add(self, what, *details):
        self.append(f"{what}: {' '.join(str(detail)[:120] for detail in details)}")


class Server:
    """Counts how often it got each request, and misbehaves as the target asks."""

    def __init__(self, faults):
        self.faults, self.got, self.lock = faults, collections.Counter(), threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.listener.accept()
                threading.Thread(target=self.hold, args=(stream,), daemon=True).start()

    def hold(self, stream):
        unread = bytearray()
        with contextlib.suppress(OSError), stream:
            while self.exchange(stream, unread):
                pass

    def exchange(self, stream, unread):
        """Serves one request. Returns whether the connection goes on."""
        def until(whole):
            while not whole():
                part = stream.recv(65536)
                if not part:
                    raise OSError
                unread.extend(part)

        until(lambda: b"\r\n\r\n" in unread)
        head, _, rest = bytes(unread).partition(b"\r\n\r\n")
        unread[:] = rest
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        _, identity, way = target.split("/")
        with self.lock:
            self.got[method, identity] += 1
        mark = f"<{identity}>".encode()
        response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (9 * len(mark))
        if way == "early":
            stream.sendall(response + 9 * mark)
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
        body = b""
        if length := int(fields.get(b"content-length", 0)):
            until(lambda: len(unread) >= length)
            body = bytes(unread[:length])
        elif b"transfer-encoding" in fields:
            until(lambda: b"\r\n0\r\n\r\n" in unread)
            body = bytes(unread[:unread.index(b"\r\n0\r\n\r\n") + 7])
        del unread[:len(body)]
        if body and identity.encode() not in body:
            self.faults.add("a request with the body of another", identity, body)
        if way == "early":
            return True
        time.sleep(random.choice([0, 0, 0, 0.002]))
        said = b"" if method == "HEAD" else 9 * mark

        def with_field(field):
            return response.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n")

        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b"%x\r\n%s\r\n%s" % (len(said), said, LAST_CHUNK) if said else b""
        sent, after = {
            "ok": (response + said, None),
            "chunked": (chunked + chunks, None),
            "stray": (response + said + STRAY, None),
            "announced": (with_field(b"Connection: close") + said, None),
            "closes": (with_field(b"connection:  x , CLOSE") + said, "close"),
            "torn": ((response + said)[:-3], "close"),
            "broken": ((response + said)[:-3], "reset"),
            "204": (b"HTTP/1.1 204 No Content\r\nX: %s\r\n\r\n" % mark, None),
            "304": (b"HTTP/1.1 304 Not Modified\r\nX: %s\r\nContent-Length: 77\r\n\r\n" % mark, None),
            "interim": (b"HTTP/1.1 103 Early Hints\r\n\r\n" + response + said, None),
            "old": (b"HTTP/1.0 200 OK\r\n\r\n" + said, "close"),
            "persistent": (with_field(b"Connection: keep-alive").replace(b"1.1", b"1.0", 1) + said, None),
            "silent": (b"", "close"),
            "reset": (b"", "reset"),
            "slow": (response + said, None),
            "long": (response + said + b"XX", None),
            "after": (response + said, "close"),
        }[way]
        if way == "slow":
            time.sleep(0.02)
        stream.sendall(sent)
        if way in ("after", "broken"):
            time.sleep(random.random() * 0.003)
        if after == "reset":
            reset(stream)
        return after is None


class Clients:
    def __init__(self, address, faults, seconds):
        self.address, self.faults, self.seconds = address, faults, seconds
        self.lock, self.asked, self.became = threading.Lock(), 0, collections.Counter()

    def run(self, seed):
        threads = [threading.Thread(target=self.ask, args=(random.Random(f"{seed} {n}"),)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def request(self, dice):
        with self.lock:
            self.asked += 1
            identity = f"id{self.asked:07d}x"
        method, way = dice.choice(["GET", "GET", "POST", "POST", "HEAD", "PUT"]), dice.choice(WAYS)
        if way == "early" and method in ("GET", "HEAD") or method == "HEAD" and way in ("torn", "broken", "long"):
            way = "ok"
        head = f"{method} /{identity}/{way} HTTP/1.1\r\nHost: a\r\n".encode()
        body = (identity * dice.choice([1, 50, 2000])).encode()
        if method in ("GET", "HEAD"):
            return method, identity, way, head + b"\r\n"
        if dice.random() < 0.4:
            chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            return method, identity, way, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk
        return method, identity, way, head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def ask(self, dice):
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            requests = []
            try:
                with socket.create_connection(self.address, PATIENCE) as stream:
                    unread = bytearray()
                    for _ in range(dice.choice([1, 1, 3, 10])):
                        requests = [self.request(dice) for _ in range(dice.choice([1, 1, 1, 2, 3]))]
                        if not self.converse(stream, unread, requests, dice):
                            break
            except socket.timeout:
                self.faults.add("a client waited in vain", [request[:3] for request in requests])
            except OSError:
                self.became["ended by a RST"] += 1

    def converse(self, stream, unread, requests, dice):
        """Sends these at one go and reads their responses. Returns whether another request may follow."""
        sent, leaves = b"".join(request[3] for request in requests), dice.random()
        stream.sendall(sent[:dice.randrange(len(sent))] if leaves < 0.06 else sent)
        if leaves < 0.12:
            self.became["left"] += 1
            time.sleep(dice.choice([0, 0, 0.003]))
            if dice.random() < 0.5:
                reset(stream)
            return False
        if leaves < 0.16:
            stream.shutdown(socket.SHUT_WR)
        for method, identity, way, _ in requests:
            response = read_response(stream, unread, method)
            if response is None:
                self.became["no whole response"] += 1
                return False
            status, head, body = response
            self.became[status] += 1
            if status < 400 and method != "HEAD" and f"<{identity}>".encode() not in (head if status > 200 else body):
                self.faults.add("a client got the response of another", method, identity, way, head, body)
            marks = {mark for mark in body.replace(b">", b"<").split(b"<") if mark.startswith(b"id")}
            if marks - {identity.encode()}:
                self.faults.add("a response with bytes of another", method, identity, way, marks)
            if status >= 400 or b"connection: close" in head.lower():
                return False
        return leaves >= 0.16


def read_response(stream, unread, method):
    def until(whole):
        while not whole():
            part = stream.recv(65536)
            if not part:
                return False
            unread.extend(part)
        return True

    while True:
        if not until(lambda: b"\r\n\r\n" in unread):
            return None
        head, _, rest = bytes(unread).partition(b"\r\n\r\n")
        unread[:] = rest
        status, fields = int(head.split()[1]), head.lower()
        if status >= 200:
            break
    length = 0
    if method == "HEAD" or status in (204, 304):
        pass
    elif b"transfer-encoding: chunked" in fields:
        if not until(lambda: LAST_CHUNK in unread):
            return None
        length = unread.index(LAST_CHUNK) + len(LAST_CHUNK)
    elif b"content-length: " in fields:
        length = int(fields.split(b"content-length: ")[1].split(b"\r\n")[0])
        if not until(lambda: len(unread) >= length):
            return None
    else:
        until(lambda: False)
        length = len(unread)
    body = bytes(unread[:length])
    del unread[:length]
    return status, head, body


def measure(options, engine, words, threads):
    faults = Faults()
    server = Server(faults)
    command = [options.deadpeer, "proxy", "--io", engine, "--threads", str(threads), "--listen", "127.0.0.1:0",
               "--upstream", f"127.0.0.1:{server.port}", "--events", "-", "--drain", "5s", *words.split()]
    proxy = subprocess.Popen(command, stdout=subprocess.PIPE)
    host, port = json.loads(proxy.stdout.readline())["address"].rsplit(":", 1)
    last = []
    reader = threading.Thread(target=lambda: last.extend(collections.deque(proxy.stdout, 1)))
    reader.start()
    clients = Clients((host, int(port)), faults, options.seconds)
    clients.run(options.seed)
    end(proxy)
    reader.join()
    server.listener.close()
    summary = json.loads(last[0])
    for (method, identity), times in server.got.items():
        if times > (1 if method == "POST" else 2):
            faults.add("a request came too often", method, identity, times)
    if summary["event"] != "summary" or summary["open"] or proxy.returncode:
        faults.add("the end of the proxy", proxy.returncode, summary)
    if not summary["upstream_connections"]["reused"] or not clients.became[200]:
        faults.add("nothing was shared, so nothing was shown", summary["upstream_connections"])
    return clients, summary, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deadpeer", default=str(TARGET / "release" / "deadpeer"), metavar="PATH")
    parser.add_argument("--seconds", type=float, default=5, help="of each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="runs whose engine and options contain this")
    parser.add_argument("--check", action="store_true", help="fail if there is a fault")
    options = parser.parse_args()
    random.seed(options.seed)
    runs = [run for run in RUNS if options.only in f"{run[0]} {run[1]}"]
    wrong = 0
    print("| engine | options | requests | status 200 | reused connections | sent again | faults |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for engine, words, threads in runs:
        clients, summary, faults = measure(options, engine, words, threads)
        upstream = summary["upstream_connections"]
        print(f"| {engine} | {words or 'none'} | {clients.asked:,} | {clients.became[200]:,} | {upstream['reused']:,} | "
              f"{upstream['repeated']:,} | {len(faults)} |", flush=True)
        for fault in faults[:10]:
            print(f"fault: {engine} {words}: {fault}", file=sys.stderr, flush=True)
        wrong += len(faults)
    if options.check and (wrong or not runs):
        sys.exit(1)


if __name__ == "__main__":
    main()
