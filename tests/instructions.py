#!/usr/bin/env python3
"""User instructions and system calls of one request, beat, accept or death, of two builds side by side.

    CARGO_PROFILE_RELEASE_DEBUG=line-tables-only cargo build --release    # in both work trees
    python3 tests/instructions.py BEFORE/target/release/deadpeer target/release/deadpeer
    python3 tests/instructions.py BEFORE AFTER --only http,tcp --keep /tmp/profiles

Each program runs under callgrind with two numbers of operations. The difference of the two counts, divided by the
difference of the numbers, is the cost of one operation: the start and the end cancel out. A count does not depend on
how busy the machine is. `strace -c -f` counts system calls in the same way, on epoll and on the ring.

One request, beat or death is in the loop at a time, which is the dearest case: no turn is shared. `http 16` and
`tcp 16` have sixteen clients that ask at the same time. Valgrind makes a system call of each
read of a clock, whose instructions are therefore not in the count.
"""

import argparse
import contextlib
import functools
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

REQUEST = b"GET /file HTTP/1.1\r\nHost: speed\r\nUser-Agent: counter/1\r\nAccept: */*\r\n\r\n"
BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nServer: counter\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + BODY
# A new peer is looked at after one second and after four; then all have been.
LOOKS = 6
RESET = (1).to_bytes(4, "little") + bytes(4)


@functools.cache
def upstream():
    """A server on a thread of this process that answers each request with 1 KiB; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)

    def serve():
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                    continue
                with contextlib.suppress(OSError):
                    if key.fileobj.recv(65536):
                        key.fileobj.sendall(ANSWER)
                        continue
                selector.unregister(key.fileobj)
                key.fileobj.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


class Server:
    """A deadpeer under a tool, and its events."""

    def __init__(self, tool, program, arguments):
        # A file in memory: the loop writes its events itself, and no count depends on when another thread wakes up.
        handle, name = tempfile.mkstemp(dir="/dev/shm")
        os.close(handle)
        self.events = Path(name)
        self.process = subprocess.Popen(
            [*tool, program, *arguments, "--listen", "127.0.0.1:0", "--events", str(self.events)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.await_true(lambda: self.lines('"listening"'), "listening")
        self.port = int(json.loads(self.lines('"listening"')[0])["address"].rpartition(":")[2])
        # A tool that stays beside the program, as strace does, has it as its child.
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.pid = int(children[0]) if children else pid

    def lines(self, word):
        return [line for line in self.events.read_text().splitlines() if word in line]

    def await_true(self, condition, what):
        end = time.monotonic() + 120
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                self.process.kill()
                self.events.unlink()
                raise SystemExit(f"no {what}: {self.process.communicate()[1]}")
            time.sleep(0.001)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.port), 60)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def connect_many(self, count):
        """Connections that are taken in one at a time."""
        clients, before = [], self.descriptors()
        for number in range(1, count + 1):
            clients.append(self.connect())
            self.await_true(lambda: self.descriptors() >= before + number, "accept")
        return clients

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        self.process.communicate(timeout=120)
        self.events.unlink()


def ask(server, count, clients):
    connected = [server.connect() for _ in range(clients)]
    for _ in range(count // clients):
        for client in connected:
            client.sendall(REQUEST)
        for client in connected:
            left = len(ANSWER)
            while left > 0:
                left -= len(client.recv(65536))
    return connected


def accept(server, count):
    clients = server.connect_many(count)
    time.sleep(LOOKS)
    return clients


def beat(server, count):
    """Beats of 50 peers at fixed times, so that the looks of the server are as many whatever the count is."""
    clients = server.connect_many(50)
    start = time.monotonic()
    for turn in range(200):
        time.sleep(max(0.0, start + turn * 0.05 - time.monotonic()))
        for client in clients[: max(1, count // 200)]:
            client.sendall(b"b" * 16)
            time.sleep(0.0003)
    return clients


def die(server, count):
    """Resets of one peer after the other, each when the line of the last death is written."""
    clients = server.connect_many(500)
    time.sleep(LOOKS)
    size = server.events.stat().st_size
    for client in clients[:count]:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        server.await_true(lambda: server.events.stat().st_size > size, "death")
        size = server.events.stat().st_size
    return clients


PROXY = ["proxy", "--drain", "0s", "--threads", "1", "--upstream"]
RUN = ["run", "--threads", "1", "--handshake", "10m"]
# What is counted: the arguments, the load, and the two numbers of operations.
CASES = {
    "http": ([*PROXY, "UPSTREAM"], lambda server, count: ask(server, count, 1), 500, 3000),
    "tcp": ([*PROXY, "UPSTREAM", "--mode", "tcp"], lambda server, count: ask(server, count, 1), 500, 3000),
    "http 16": ([*PROXY, "UPSTREAM"], lambda server, count: ask(server, count, 16), 1600, 6400),
    "tcp 16": ([*PROXY, "UPSTREAM", "--mode", "tcp"], lambda server, count: ask(server, count, 16), 1600, 6400),
    "accept": (RUN, accept, 100, 600),
    "beat": (RUN, beat, 200, 10000),
    "woken beat": ([*RUN, "--wake", "beat"], beat, 200, 10000),
    "death": (RUN, die, 50, 450),
}


def run_once(tool, program, case, io, count):
    arguments, load, *_ = CASES[case]
    arguments = [f"127.0.0.1:{upstream()}" if word == "UPSTREAM" else word for word in arguments]
    server = Server(tool, program, [*arguments, "--io", io])
    clients = load(server, count)
    server.stop()
    for client in clients:
        client.close()


def instructions(program, case, count, folder):
    """User instructions of all threads."""
    out = Path(folder) / f"{case.replace(' ', '-')}-{count}.callgrind"
    run_once(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"], program, case, "epoll", count)
    return int(re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.M)[1])


def system_calls(program, case, io, count, folder):
    out = Path(folder) / "strace"
    run_once(["strace", "-f", "-c", "-o", str(out)], program, case, io, count)
    return int(re.search(r"(\d+)(?: +\d+)? total$", out.read_text(), re.M)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("programs", nargs=2, metavar="PROGRAM", help="before and after")
    parser.add_argument("--only", default=",".join(name for name in CASES), help="cases, with commas")
    parser.add_argument("--keep", metavar="FOLDER", help="where the profiles stay, for callgrind_annotate")
    parser.add_argument("--rounds", type=int, default=3, help="runs, of which the least counts")
    parser.add_argument("--no-strace", action="store_true", help="instructions only")
    options = parser.parse_args()
    names = [name for name in CASES if name in options.only.split(",")]
    print("| each | instructions | | ratio | system calls, epoll | | ring | |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for case in names:
        small, large = CASES[case][2:]
        counted, traced = [], []
        for place, program in enumerate(options.programs):
            with tempfile.TemporaryDirectory() as folder:
                if options.keep:
                    folder = Path(options.keep) / str(place)
                    folder.mkdir(parents=True, exist_ok=True)
                def least(count, *arguments):
                    """What an operation adds to the least of some counts: all that disturbs a run adds to it."""
                    found = [min(count(program, case, *arguments, number, folder) for _ in range(options.rounds))
                             for number in (small, large)]
                    return (found[1] - found[0]) / (large - small)

                counted.append(least(instructions))
                if not options.no_strace:
                    traced += [least(system_calls, "epoll"), least(system_calls, "uring")]
        row = [case, f"{counted[0]:,.0f}", f"{counted[1]:,.0f}", f"{counted[1] / counted[0]:.3f}"]
        row += [f"{traced[at]:.2f}" for at in (0, 2, 1, 3) if traced]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
