"""Which HTTP clients are unharmed by interim responses and leading zeros that they did not ask for.

Deadpeer's proxy writes `100 Continue` to a client that has half-closed, to learn whether it is still
there, and a `0` before the size of a chunk where a chunked response has begun. A raw server of our own
writes 100, 102 or 103, once or more often, before its final response, or (code 0) so many zeros before
each size of a chunked response, and then answers a second request on the same connection. Prints a
table in Markdown.

    clients.py
    clients.py --check       fails if up to four questions harmed a client that could be asked them
"""

import argparse
import json
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True  # nothing beside the sources

from serving import HERE, Missing, go_program, has_module, node_program, venv_python

PROGRAMS = HERE / "clients"
INTERIMS = {
    100: b"HTTP/1.1 100 Continue\r\n\r\n",
    102: b"HTTP/1.1 102 Processing\r\n\r\n",
    103: b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n",
}
ZERO = 0
BODY = b"well"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

# Known to be harmed by a `100 Continue`; good as long as it does not half-close, and so is never probed.
ALLERGIC = {"Node fetch"}

# The interim responses come one by one, or all in one segment with the final one.
MANNERS = ("apart", "at once")


class RawServer:
    """Answers every request with interim responses and then with the final one."""

    def __init__(self, code, count, manner):
        self.interim, self.count, self.manner = INTERIMS.get(code), count, manner
        self.connections = 0
        self.half_closed = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d/" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held = b""
        try:
            while data := client.recv(65536):
                held += data
                while b"\r\n\r\n" in held:
                    held = held.partition(b"\r\n\r\n")[2]
                    self.answer(client)
        except OSError:
            pass  # a client that we broke hangs up
        client.close()

    def answer_in_chunks(self, client):
        pieces = [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"]
        for chunk in [b"%x\r\n%s\r\n" % (1, BODY[:1]), b"%x\r\n%s\r\n" % (len(BODY) - 1, BODY[1:]), b"0\r\n\r\n"]:
            pieces += [b"0"] * self.count + [chunk]
        if self.manner == "at once":
            client.sendall(b"".join(pieces))
            return
        for piece in pieces:
            time.sleep(0.03)
            client.sendall(piece)

    def answer(self, client):
        if self.interim is None:
            self.answer_in_chunks(client)
            return
        if self.manner == "at once":
            client.sendall(self.interim * self.count + FINAL)
            return
        for _ in range(self.count):
            time.sleep(0.03)
            client.sendall(self.interim)
        poll = select.poll()
        poll.register(client, select.POLLRDHUP)
        if poll.poll(30):
            self.half_closed = True
        client.sendall(FINAL)

    def end(self):
        self.listener.close()


def answers(command):
    """What a program of ours printed: what each of its two requests came to."""
    out = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return json.loads(out.stdout) if out.returncode == 0 else [out.stderr.strip()] * 2


def curl():
    program = shutil.which("curl")
    if not program:
        raise Missing("no curl: install curl")

    def ask(url):
        command = [program, "-sS", "-m", "5", "-w", "%{http_code}\n", url, url]
        out = subprocess.run(command, capture_output=True, text=True, timeout=20)
        if out.returncode:
            return [out.stderr.strip()] * 2
        return [f"{line[-3:]} {line[:-3]}" for line in out.stdout.splitlines()]

    return ask


def wget():
    program = shutil.which("wget")
    if not program:
        raise Missing("no wget: install wget")

    def ask(url):
        command = [program, "-nv", "-t", "1", "-T", "5", "-O", "-", url, url]
        out = subprocess.run(command, capture_output=True, text=True, timeout=20)
        if out.returncode:
            return [out.stderr.strip().splitlines()[-1]] * 2
        half = len(out.stdout) // 2  # the two bodies, without their statuses
        return [f"200 {out.stdout[:half]}", f"200 {out.stdout[half:]}"]

    return ask


def perl():
    program = shutil.which("perl")
    script = (
        "my $client = HTTP::Tiny->new(timeout => 5);"
        "for (1, 2) { my $came = $client->get($ARGV[0]); print qq($came->{status} $came->{content}\\n) }"
    )
    if not program or subprocess.run([program, "-MHTTP::Tiny", "-e", "1"], capture_output=True).returncode:
        raise Missing("no HTTP::Tiny: install perl")

    def ask(url):
        command = [program, "-MHTTP::Tiny", "-e", script, url]
        out = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return out.stdout.splitlines() or [out.stderr.strip()] * 2

    return ask


def python(name):
    module = name.partition(".")[0]
    if not has_module(module):
        raise Missing(f"no {module}: pip install {module}")
    command = [venv_python(), str(PROGRAMS / "client.py"), name]
    return lambda url: answers([*command, url])


def node(kind):
    command = [node_program(), str(PROGRAMS / "client.mjs"), kind]
    return lambda url: answers([*command, url])


def go():
    program = go_program(PROGRAMS / "client.go", "go-client")
    return lambda url: answers([program, url])


CLIENTS = {
    "curl": curl,
    "wget": wget,
    "Perl HTTP::Tiny": perl,
    "Python http.client": lambda: python("http.client"),
    "Python requests": lambda: python("requests"),
    "Python httpx": lambda: python("httpx"),
    "Python aiohttp": lambda: python("aiohttp"),
    "Go net/http": go,
    "Node http": lambda: node("http"),
    "Node fetch": lambda: node("fetch"),
}


def harm(ask, code, count):
    """What these interim responses did to a client, or None; and whether it half-closed before the end."""
    half_closed = False
    for manner in MANNERS:
        server = RawServer(code, count, manner)
        try:
            came = ask(server.url)
        except subprocess.TimeoutExpired:
            came = ["no answer in time"]
        finally:
            server.end()
        half_closed |= server.half_closed
        wanted = f"200 {BODY.decode()}"
        wrong = [what for what in came if what != wanted]
        if wrong or len(came) != 2:
            what = (wrong or ["one answer for two requests"])[0].strip()
            return reason(code, what, server.url), half_closed
        if server.connections != 1:
            return f"{server.connections} connections for two requests", half_closed
    return None, half_closed


def reason(code, what, url):
    if what.startswith(str(code)):
        return f"took {code} for the final response"
    return what.replace(url, "URL")


def table(found, codes, counts):
    columns = [(code, count) for code in codes for count in counts]
    label = {ZERO: "zeros"}
    lines = [
        "| client | " + " | ".join(f"{label.get(code, code)} x{count}" for code, count in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    reasons = []
    for client in dict.fromkeys(client for client, _, _ in found):
        cells = []
        for column in columns:
            why = found[(client, *column)]
            if why and (client, why) not in reasons:
                reasons.append((client, why))
            cells.append(f"broken [{reasons.index((client, why)) + 1}]" if why else "ok")
        lines.append(f"| {client} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"[{number}] {client}: {why}" for number, (client, why) in enumerate(reasons, 1)]
    return "\n".join(lines)


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codes", type=numbers, default=[*INTERIMS, ZERO])
    parser.add_argument("--counts", type=numbers, default=[1, 2, 4, 6])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="fail if up to four questions did harm")
    options = parser.parse_args()

    asks = {}
    for name, prepare in CLIENTS.items():
        try:
            asks[name] = prepare()
        except Missing as why:
            print(f"skipped: {name}: {why}", file=sys.stderr)
    half_closers = set()
    for name, ask in asks.items():
        why, half_closed = harm(ask, 100, 0)
        if half_closed:
            half_closers.add(name)
        if why:
            sys.exit(f"{name} fails even without interim responses: {why}")

    cases = [(name, code, count) for name in asks for code in options.codes for count in options.counts]
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(cases, pool.map(lambda case: harm(asks[case[0]], *case[1:])[0], cases)))
    print(table(found, options.codes, options.counts))
    print(f"\nHalf-closed while they waited: {', '.join(sorted(half_closers)) or 'none of them'}.")
    if options.json:
        columns = ("client", "code", "count", "harm")
        rows = [dict(zip(columns, [*case, why])) for case, why in found.items()]
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")
    if options.check:
        harmed = [
            f"{name} by {count}: {why}"
            for (name, code, count), why in found.items()
            if code in (100, ZERO) and count <= 4 and why
            and (code == ZERO or name in half_closers or name not in ALLERGIC)
        ]
        for one in harmed:
            print(f"check failed: {one}", file=sys.stderr)
        if harmed:
            sys.exit(1)
        print("check passed: up to four questions harmed no client that could be asked them")


if __name__ == "__main__":
    main()
