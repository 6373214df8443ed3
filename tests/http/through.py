"""Real clients through deadpeer's proxy, while a real server works for them.

A client that waits gets exactly its answer, twice on one connection, and no event says that it has left. So does a
client that half-closes, which is asked by a `100 Continue` that it sees. A client that is killed (SIGKILL) while the
handler works causes exactly one event, and the handler notices. Prints a table in Markdown.

    through.py
    through.py --check       the gate's: fails at any other answer, event or count, and if one is missing
"""

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Callable
from urllib.parse import urlsplit

sys.dont_write_bytecode = True  # nothing beside the sources

from fronts import Deadpeer
from responses import read_response
from serving import HERE, TARGET, Missing, Server, go_program, node_program

PROGRAMS = HERE / "clients"
AT_ONCE = 8
WORK_MS = 1500
WORK_OF_THE_KILLED_MS = 4000  # beyond the 1 s after which a half-closed client is asked again
SECONDS = 20  # far beyond what any of it takes


@dataclass
class Kind:
    """A kind of request: the size of its body, and whether it first asks whether it should send it."""

    name: str
    size: int = 0
    expects: bool = False

    @property
    def method(self):
        return "POST" if self.size else "GET"

    @property
    def body(self):
        """No two places have the same bytes, and no line ends."""
        return "".join(f"{number:08x}" for number in range(self.size // 8))


GET = Kind("GET")
SMALL = Kind("POST of 2 KB", 2_000)
LARGE = Kind("POST of 300 KB", 300_000)  # more than is gathered
EXPECTS = Kind("Expect: 100-continue", 2_000, expects=True)
KINDS = [GET, SMALL, LARGE, EXPECTS]


@dataclass
class Client:
    """A client: what to type, what it reads, how often it asks, and how its output is read."""

    command: Callable
    kinds: list
    read: Callable = json.loads
    input: Callable = lambda url, kind: b""
    requests: int = 2
    half_closes: bool = False

    @property
    def connections(self):
        return self.requests if self.half_closes else 1


def curl():
    program = shutil.which("curl")
    if not program:
        raise Missing("no curl: install curl")

    def command(url, kind, file):
        typed = [program, "-sS", "--noproxy", "*", "-m", str(SECONDS), "-w", "%{http_code}\n"]
        # Otherwise it would send its body after a second, though it was not asked for.
        typed += ["--expect100-timeout", str(SECONDS)]
        if kind.size:
            expect = "Expect: 100-continue" if kind.expects else "Expect:"
            typed += ["--data-binary", f"@{file}", "-H", expect]
        return [*typed, url, url]

    def read(out):
        return [f"{line[-3:]} {line[:-3]}" for line in out.decode().splitlines()]

    return Client(command, KINDS, read)


def ours(*program, kinds, **more):
    """A program of ours, that prints what its two requests came to."""

    def command(url, kind, file):
        return [*program, url, *([file] if kind.size else []), *(["expect"] if kind.expects else [])]

    return Client(command, kinds, **more)


def netcat():
    program = shutil.which("nc")
    if not program:
        raise Missing("no nc: install netcat-openbsd")

    def command(url, kind, file):
        return [program, "-N", *urlsplit(url).netloc.split(":")]

    def request(url, kind):
        parts = urlsplit(url)
        length = f"Content-Length: {kind.size}\r\n" if kind.size else ""
        head = f"{kind.method} {parts.path}?{parts.query} HTTP/1.1\r\nHost: server\r\n{length}\r\n"
        return (head + kind.body).encode()

    return Client(command, [GET, SMALL, LARGE], one_response, request, requests=1, half_closes=True)


class Came:
    """What came already, for a reader of a socket."""

    def __init__(self, data):
        self.data = data

    def settimeout(self, seconds):
        pass

    def recv(self, size):
        data, self.data = self.data[:size], self.data[size:]
        return data


def one_response(out):
    """A single response with what came before it, as our own programs would print it."""
    response = read_response(Came(out), 1)
    came = [*sorted(set(response.interims)), response.fault or response.status, response.body.decode()]
    return [" ".join(map(str, came))]


def python(name, **more):
    return ours(sys.executable, str(PROGRAMS / "client.py"), name, **more)


def node(name, **more):
    return ours(node_program(), str(PROGRAMS / "client.mjs"), name, **more)


CLIENTS = {
    "curl": curl,
    "Python http.client": lambda: python("http.client", kinds=[GET, SMALL, LARGE]),
    "Go net/http": lambda: ours(go_program(PROGRAMS / "client.go", "go-client"), kinds=KINDS),
    "Node http": lambda: node("http", kinds=KINDS),
    "Node fetch": lambda: node("fetch", kinds=[GET, SMALL, LARGE]),
    "Python socket that half-closes": lambda: python("half-close", kinds=KINDS, half_closes=True),
    "nc -N": netcat,
}


class Wrong(Exception):
    """What should have been otherwise."""


class Run:
    """One server behind one proxy, and all that its clients came to."""

    def __init__(self, server, clients, options):
        self.server, self.clients = server, clients
        self.front = Deadpeer(server, options)
        self.folder = tempfile.TemporaryDirectory()
        for kind in KINDS:
            Path(self.folder.name, kind.name).write_text(kind.body)
        # What the proxy should tell in the end.
        self.killed, self.opened, self.completed = [], 0, 0

    def end(self):
        self.front.end()
        self.folder.cleanup()

    def url(self, case, ms):
        return f"http://127.0.0.1:{self.front.address[1]}/echo?id={case}&ms={ms}"

    def start(self, client, kind, url):
        with tempfile.TemporaryFile() as file:
            file.write(client.input(url, kind))
            file.seek(0)
            typed = client.command(url, kind, str(Path(self.folder.name, kind.name)))
            return subprocess.Popen(typed, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait(self, client, kind, case):
        """A client that waits for its answers, each of which must be the one that it should get."""
        url = self.url(case, WORK_MS)
        process = self.start(client, kind, url)
        try:
            out, errors = process.communicate(timeout=3 * SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Wrong("no end in time") from None
        if process.returncode:
            raise Wrong(f"it ended with {process.returncode}: {errors.decode().strip()}")
        target = url.partition(str(self.front.address[1]))[2]
        wanted = f"200 {kind.method} {target} {kind.body}"
        if client.half_closes:
            wanted = f"100 {wanted}"
        came = client.read(out)
        if came != [wanted] * client.requests:
            raise Wrong("it got " + " and ".join(repr(what[:200]) for what in came))
        return "ok"

    def kill(self, client, kind, case):
        """A client that is killed while the handler works, which must be told of, and be noticed."""
        process = self.start(client, kind, self.url(case, WORK_OF_THE_KILLED_MS))
        try:
            if self.server.told(case, ["began"], SECONDS)[0] is None:
                raise Wrong("the handler never began")
            time.sleep(0.1)
            left = time.monotonic_ns()
        finally:
            process.kill()
            process.communicate()
        told = self.front.reporter.wait(lambda line: interrupted(line, case), SECONDS)
        if told is None:
            raise Wrong("nothing was told")
        what = told["phase"], told["method"], told["done"], told["saved"]
        if what != ("waiting", kind.method, "reset", True):
            raise Wrong(f"what was told is {json.dumps(told)}")
        event, noticed = self.server.told(case, ["left", "finished"], SECONDS)
        if event != "left":
            raise Wrong("the handler worked to its end")
        return f"{(noticed - left) / 1e6:.1f} ms"

    def play(self, pool):
        """All of it: {(client, kind, verb): future}."""
        playing = {}
        for name, client in self.clients.items():
            for kind in client.kinds:
                waiting, killed = f"{len(playing)}-waits", f"{len(playing)}-killed"
                playing[name, kind.name, "wait"] = pool.submit(self.wait, client, kind, waiting)
                playing[name, kind.name, "kill"] = pool.submit(self.kill, client, kind, killed)
                self.killed.append(killed)
                self.opened += client.connections + 1
                self.completed += client.requests
        return playing

    def miscounted(self):
        """Ends the proxy; what it told that it should not have, or did not."""
        fell = self.front.fell()
        if fell:
            return [fell]
        self.front.end()
        summary = self.front.reporter.wait(lambda line: line["event"] == "summary", SECONDS)
        if summary is None:
            return ["there is no summary"]
        found = []
        for case in self.killed:
            times = sum(interrupted(line, case) for line in self.front.events)
            if times != 1:
                found.append(f"{case} was told of {times} times")
        wanted = {"interrupted": len(self.killed), "saved": len(self.killed), "completed": self.completed}
        wanted |= {"opened": self.opened, "upstream_failed": 0, "not_followed": 0, "undelivered": 0}
        for name, count in wanted.items():
            if summary[name] != count:
                found.append(f"{summary[name]} {name} instead of {count}")
        return found


def interrupted(line, case):
    return line["event"] == "interrupted" and f"id={case}&" in line.get("target", "")


def row(server, name, cells):
    """A client's cells, and what was wrong."""
    texts, faults = [], []
    for verb in ("wait", "kill"):
        for kind in KINDS:
            future = cells.get((name, kind.name, verb))
            try:
                texts.append(future.result() if future else "")
            except (Wrong, OSError, ValueError) as why:
                texts.append("wrong")
                faults.append(f"{server}, {name}, {kind.name}, {verb}: {why}")
    return f"| {server} | {name} | " + " | ".join(texts) + " |", faults


def prepare(missing):
    clients = {}
    for name, make in CLIENTS.items():
        try:
            clients[name] = make()
        except Missing as why:
            missing.append(f"{name}: {why}")
    return clients


def before(name, clients, counts, options):
    """All clients before one server: prints their rows, and returns what was wrong."""
    faults = []
    with ExitStack() as ending:
        server = Server(name)
        ending.callback(server.end)
        run = Run(server, clients, options)
        ending.callback(run.end)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            cells = run.play(pool)
        for client in clients:
            line, wrong = row(name, client, cells)
            print(line, flush=True)
            faults += wrong
        faults += [f"{name}: {what}" for what in run.miscounted()]
        counts.append(f"{name}: {run.completed} answers, {len(run.killed)} killed")
    return faults


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deadpeer", default=str(TARGET / "release" / "deadpeer"), metavar="PATH")
    parser.add_argument("--deadpeer-options", type=shlex.split, default=[], metavar="TEXT")
    parser.add_argument("--servers", type=lambda text: text.split(","), default=["go", "uvicorn", "node"])
    parser.add_argument("--check", action="store_true", help="fail if anything was wrong or missing")
    options = parser.parse_args()
    options.address, options.within, options.silent = "127.0.0.1", [], False
    # Ended from outside, we still end whom we began.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    missing, faults, counts = [], [], []
    clients = prepare(missing)
    print("| server | client | " + " | ".join(kind.name for kind in KINDS), end=" | ")
    print(" | ".join(f"killed: {kind.name}" for kind in KINDS) + " |")
    print("|---|---|" + "---|" * len(KINDS) + "---:|" * len(KINDS))
    for name in options.servers:
        try:
            faults += before(name, clients, counts, options)
        except Missing as why:
            missing.append(f"{name}: {why}")
    print(f"\nok: exactly the answer that it should get, after {WORK_MS / 1000:g} s of work; a client that half-closed")
    print("was asked before it. Killed: from the SIGKILL until the handler knew. " + "; ".join(counts) + ".")
    for what in missing:
        print(f"skipped: {what}", file=sys.stderr)
    for fault in faults:
        print(f"check failed: {fault}", file=sys.stderr)
    if options.check:
        if faults or missing:
            sys.exit(1)
        print("check passed: clients that waited got their answers, and exactly those that were killed were reported")


if __name__ == "__main__":
    main()
