#!/usr/bin/env python3
"""What clients see while their upstreams fail: deadpeer's proxy beside HAProxy and nginx.

    apt-get install -y --no-install-recommends haproxy nginx-light
    python3 tests/http/chaos.py            # three minutes, a Markdown table on stdout
    python3 tests/http/chaos.py --quick    # under a minute

Eight clients ask all the time, half of them for each request on a new connection, half of them with keep-alive; half of the
requests are POSTs. Counted is every request that did not get its whole answer with status 200. A client of keep-alive looks before
it asks whether its connection was closed, as browsers do. The upstream is written for this, and fails at command. All fronts
have two upstreams unless the row says otherwise, a connect timeout of one second, three retries on another server, and the
defaults of their makers in everything else.
"""

import argparse
import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from fronts import free_port
from serving import TARGET, Missing, Reporter, end

HOST = "127.0.0.1"
# At the end of a cable where nobody takes a packet (192.0.2.0/24 is for documents: RFC 5737), in a network of the test's own.
NOBODY = "192.0.2.2"
NETWORK = (
    "ip link set lo up && ip link add here type veth peer name there && ip link set there up && ip link set here up && "
    f"ip addr add 192.0.2.1/24 dev here && ip neigh add {NOBODY} lladdr 02:00:00:00:00:02 dev here"
)
ALONE = "DEADPEER_CHAOS_ALONE"
BODY = b"x" * 1024
PIECES = 4
# Each client's pause between two requests.
PACE = 0.01
PATIENCE = 8

HAPROXY = """\
global
    log stderr local0 emerg
    maxconn 1000
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    retries 3
    option redispatch 1
{options}
frontend front
    bind {host}:{port}
    default_backend back
backend back
{servers}
"""

NGINX = """\
daemon off;
worker_processes 1;
user root;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream back {{
{servers}
        keepalive 32;
    }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://back;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 1s;
        }}
    }}
}}
"""


# -- the upstream --------------------------------------------------------------------------------------


class Upstream:
    """One upstream in a process of its own. `how`: what it does with requests."""

    def __init__(self, how="well", port=None):
        self.port = port or free_port(HOST, ())
        self.address = f"{HOST}:{self.port}"
        self.how = how
        self.begin()

    def begin(self):
        command = [sys.executable, __file__, "--upstream", str(self.port), self.how]
        self.reporter = Reporter(command, quiet=False)
        self.reporter.listening("the upstream")

    def kill(self):
        self.reporter.process.kill()
        self.reporter.process.wait()

    def end(self):
        end(self.reporter.process)


class BlackHole:
    """An address that takes no connection and says nothing: a listener whose queue is full drops every SYN."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind((HOST, 0))
        self.listener.listen(0)
        self.port = self.listener.getsockname()[1]
        self.address = f"{HOST}:{self.port}"
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HOST, self.port))
            self.fillers.append(filler)

    def end(self):
        for one in [*self.fillers, self.listener]:
            one.close()


class Lost:
    """An address on a path that drops every packet, as of a machine without power."""

    address = f"{NOBODY}:80"

    def __init__(self):
        if ALONE not in os.environ:
            raise Missing("no network of its own for a lost path: run it as root")

    def end(self):
        pass


async def serve(port, how):
    async def answer(reader, writer):
        with contextlib.suppress(OSError, EOFError):
            while True:
                if how == "reset":
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                # A server whose patience is as long as its clients' pauses closes what a front is about to use.
                patience = 0.02 if how == "impatient" else None
                try:
                    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), patience)
                except asyncio.TimeoutError:
                    break
                if b"\r\nContent-Length: 100\r\n" in head:
                    await reader.readexactly(100)
                if how == "dying":
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                if how == "slow":
                    await asyncio.sleep(1)
                if how == "working":
                    await asyncio.sleep(0.1)
                if how == "pausing":
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    for _ in range(PIECES):
                        await asyncio.sleep(0.3)
                        writer.write(b"100\r\n" + BODY[:256] + b"\r\n")
                        await writer.drain()
                    writer.write(b"0\r\n\r\n")
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + BODY)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, HOST, port, backlog=1024, reuse_address=True)
    print(json.dumps({"event": "listening", "port": port}), flush=True)
    async with server:
        await server.serve_forever()


# -- the fronts ----------------------------------------------------------------------------------------


class Front:
    """A front on a port of its own, which may be reloaded while it is used."""

    def __init__(self, options, upstreams, half_closing):
        self.options, self.half_closing = options, half_closing
        self.upstreams = [upstream.address for upstream in upstreams]
        self.port = free_port(HOST, ())
        self.folder = tempfile.TemporaryDirectory()
        self.process = self.start()
        self.wait()

    def wait(self):
        until = time.monotonic() + 10
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, self.port), 1).close()
                return
            time.sleep(0.02)
        raise Missing(f"{self.name} does not listen: {Path(self.folder.name, 'log').read_text()[-300:]}")

    def spawn(self, command, **more):
        with Path(self.folder.name, "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, **more)

    def configured(self, template, **more):
        file = Path(self.folder.name, "conf")
        file.write_text(template.format(folder=self.folder.name, host=HOST, port=self.port, **more))
        return file

    def end(self):
        end(self.process)
        self.folder.cleanup()


class Deadpeer(Front):
    """Its socket is passed to it, as a service manager does."""

    name = "deadpeer"
    passed = None

    def start(self):
        if not self.passed:
            self.passed = socket.create_server((HOST, self.port), backlog=1000)
        if not Path(self.options.deadpeer).exists():
            raise Missing(f"no deadpeer at {self.options.deadpeer}")
        command = [self.options.deadpeer, "proxy", "--listen", f"{HOST}:{self.port}", "--threads", "1",
                   "--connect-timeout", "1s", "--events", f"{self.folder.name}/events-{time.monotonic_ns()}"]
        for address in self.upstreams:
            command += ["--upstream", address]
        activated = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 </dev/null']
        return self.spawn([*activated, *command, *self.options.deadpeer_options], stdin=self.passed)

    def end(self):
        super().end()
        self.passed.close()

    def reload(self):
        """The next process listens on the same socket as this one, which then comes to its end."""
        old, self.process = self.process, self.start()
        time.sleep(0.3)
        old.terminate()
        threading.Thread(target=old.wait, daemon=True).start()


class Haproxy(Front):
    name = "haproxy"

    def start(self):
        program = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")
        if not program:
            raise Missing("no haproxy: install haproxy")
        servers = "\n".join(f"    server s{number} {address}" for number, address in enumerate(self.upstreams))
        file = self.configured(HAPROXY, servers=servers, options="    option abortonclose")
        return self.spawn([program, "-W", "-f", str(file)])

    def reload(self):
        self.process.send_signal(signal.SIGUSR2)


class Nginx(Front):
    name = "nginx"

    def start(self):
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if not program:
            raise Missing("no nginx: install nginx-light")
        servers = "\n".join(f"        server {address};" for address in self.upstreams)
        file = self.configured(NGINX, servers=servers)
        return self.spawn([program, "-c", str(file), "-e", f"{self.folder.name}/error.log"])

    def reload(self):
        self.process.send_signal(signal.SIGHUP)


FRONTS = {front.name: front for front in (Deadpeer, Haproxy, Nginx)}


# -- the clients ---------------------------------------------------------------------------------------


class Client(threading.Thread):
    """Asks one request after the other until it is told to stop."""

    def __init__(self, port, number, half_closing):
        super().__init__(daemon=True)
        self.port, self.number, self.half_closing = port, number, half_closing
        self.stop, self.asked, self.errors = False, 0, []
        self.slowest = 0.0
        self.connection = None

    def run(self):
        while not self.stop:
            began = time.monotonic()
            self.asked += 1
            error = self.ask()
            self.slowest = max(self.slowest, time.monotonic() - began)
            if error:
                self.errors.append(error)
                self.drop()
            elif self.number % 2 == 0 or self.half_closing:
                self.drop()
            time.sleep(PACE)
        self.drop()

    def drop(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def ask(self):
        """What went wrong with one request, if anything did."""
        if self.connection and select.select([self.connection], [], [], 0)[0]:
            self.drop()  # it was closed while nothing was asked
        try:
            if not self.connection:
                self.connection = socket.create_connection((HOST, self.port), PATIENCE)
        except OSError as error:
            return f"connect: {error.strerror or error}"
        post = self.asked % 2
        request = b"%s /%d HTTP/1.1\r\nHost: chaos\r\n" % (b"POST" if post else b"GET", self.asked)
        request += b"Content-Length: 100\r\n\r\n" + BODY[:100] if post else b"\r\n"
        try:
            self.connection.sendall(request)
            if self.half_closing:
                self.connection.shutdown(socket.SHUT_WR)
            return self.read()
        except socket.timeout:
            return "no answer"
        except OSError as error:
            return f"{error.strerror or error}"

    def read(self):
        """Reads a response, with interim ones before it, and compares it with what the upstream sends."""
        got = b""
        while True:
            head, whole, body = got.partition(b"\r\n\r\n")
            if whole and head.startswith(b"HTTP/1.1 100"):
                got = body
                continue
            if whole:
                status = head.split(b" ", 2)[1]
                if status != b"200":
                    return f"status {status.decode()}"
                chunked = b"chunked" in head.lower()
                if len(body) >= 1024 and not chunked or body.endswith(b"0\r\n\r\n") and chunked:
                    found = unchunked(body) if chunked else body
                    self.last = b"\r\nconnection: close" in head.lower()
                    if self.last:
                        self.drop()
                    return None if found == BODY else "another body"
            more = self.connection.recv(65536)
            if not more:
                return "cut off" if got else "closed without an answer"
            got += more


def unchunked(body):
    """The content of chunks. A size may begin with zeros."""
    found = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return found
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]


# -- what happens --------------------------------------------------------------------------------------


def nothing(front, upstreams, seconds):
    time.sleep(seconds)


def restarts(front, upstreams, seconds):
    """The first upstream is killed every two seconds, and is back after 0.7 s."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.6)
        upstreams[0].kill()
        time.sleep(0.7)
        upstreams[0].begin()
    time.sleep(0.5)


def reloads(front, upstreams, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.7)
        front.reload()
        time.sleep(0.7)


# The name, the upstreams, what happens meanwhile, and whether clients half-close.
ROWS = [
    ("nothing", ["well", "well"], nothing, False),
    ("one of two upstreams restarts, 0.7 s each time", ["well", "well"], restarts, False),
    ("the only upstream restarts, 0.7 s each time", ["well"], restarts, False),
    ("the front is reloaded", ["working", "working"], reloads, False),
    ("one of two resets every connection at once", ["reset", "well"], nothing, False),
    ("one of two reads each request and resets", ["dying", "well"], nothing, False),
    ("one of two accepts no connection, its queue is full", ["hole", "well"], nothing, False),
    ("one of two is behind a path that drops everything", ["lost", "well"], nothing, False),
    ("one of two takes a second for an answer", ["slow", "well"], nothing, False),
    ("upstreams close idle connections after 20 ms", ["impatient", "impatient"], nothing, False),
    ("responses pause three times for 0.3 s", ["pausing", "pausing"], nothing, False),
    ("clients half-close, handlers take 0.1 s", ["working", "working"], nothing, True),
]


def measure(front_name, row, options):
    name, hows, happening, half_closing = row
    with contextlib.ExitStack() as ending:
        upstreams = []
        for how in hows:
            kinds = {"hole": BlackHole, "lost": Lost}
            upstreams.append(kinds[how]() if how in kinds else Upstream(how))
            ending.callback(upstreams[-1].end)
        front = FRONTS[front_name](options, upstreams, half_closing)
        ending.callback(front.end)
        clients = [Client(front.port, number, half_closing) for number in range(8)]
        for client in clients:
            client.start()
        happening(front, upstreams, options.seconds)
        for client in clients:
            client.stop = True
        for client in clients:
            client.join(2 * PATIENCE)
    errors = {}
    for client in clients:
        for error in client.errors:
            errors[error] = errors.get(error, 0) + 1
    return {"row": name, "front": front_name, "asked": sum(client.asked for client in clients), "errors": errors,
            "slowest_ms": round(1000 * max(client.slowest for client in clients))}


def cell(result):
    if result is None:
        return "-"
    wrong = sum(result["errors"].values())
    kinds = "; ".join(f"{count}× {kind}" for kind, count in sorted(result["errors"].items(), key=lambda e: -e[1]))
    return f"{wrong} of {result['asked']:,}, {result['slowest_ms']:,} ms" + (f" ({kinds})" if kinds else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deadpeer", default=str(TARGET / "release" / "deadpeer"), metavar="PATH")
    parser.add_argument("--deadpeer-options", type=str.split, default=[], metavar="TEXT", help="more options for its proxy")
    parser.add_argument("--fronts", type=lambda text: text.split(","), default=list(FRONTS))
    parser.add_argument("--only", metavar="TEXT", help="rows whose names contain this")
    parser.add_argument("--seconds", type=float, default=5, help="of each row and front")
    parser.add_argument("--quick", action="store_true", help="only deadpeer, 2 s each")
    parser.add_argument("--check", action="store_true", help="fail if clients of deadpeer's met errors that need not be")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.fronts = 2, ["deadpeer"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    alone = ["unshare", "-n", "sh", "-c", f'{NETWORK} && exec "$@"', "sh"]
    if ALONE not in os.environ and subprocess.run([*alone, "true"], stderr=subprocess.DEVNULL).returncode == 0:
        os.environ[ALONE] = "1"
        os.execvp(alone[0], [*alone, sys.executable, *sys.argv])
    rows = [row for row in ROWS if not options.only or options.only in row[0]]
    results = []
    for row in rows:
        for front in options.fronts:
            try:
                results.append(measure(front, row, options))
            except Missing as why:
                print(f"skipped: {front}: {why}", file=sys.stderr, flush=True)
                continue
            print(f"{row[0]}: {front}: {cell(results[-1])}", file=sys.stderr, flush=True)
    print("| meanwhile | " + " | ".join(options.fronts) + " |")
    print("|---|" + "---|" * len(options.fronts))
    for name, *_ in rows:
        found = {result["front"]: result for result in results if result["row"] == name}
        print(f"| {name} | " + " | ".join(cell(found.get(front)) for front in options.fronts) + " |")
    print("\nRequests that did not get their whole answer, of all; and the longest time that one took.")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    if options.check:
        sys.exit(check(results))


# What no front can hide always: a request that its server may have read can have had its effect, and is not sent again.
MAY_BE_READ = ("restarts", "resets", "close idle connections")


def check(results):
    own = [result for result in results if result["front"] == "deadpeer"]
    wrong = []
    for result in own:
        may_be_read = any(part in result["row"] for part in MAY_BE_READ)
        allowed = result["asked"] // 20 if may_be_read else 0
        if sum(result["errors"].values()) > allowed:
            wrong.append(result)
    for result in wrong:
        print(f"check failed: {result['row']}: {result['errors']}", file=sys.stderr)
    return 1 if wrong or not own else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--upstream"]:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(int(sys.argv[2]), sys.argv[3]))
    else:
        main()
