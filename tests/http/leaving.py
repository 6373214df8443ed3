"""How soon a server knows that its client has left while it still works for it.

Real servers (Go, uvicorn, Node, asyncio), clients that leave in every way there is, and between
them nothing, deadpeer's proxy, or another's. Prints a table in Markdown.

    leaving.py                       all, with no front and with deadpeer's
    leaving.py --quick --check       the gate's: fails if deadpeer's proxy missed a leaving
    leaving.py --silent              clients that vanish without a word (root only)

How a time comes about: the driver notes CLOCK_MONOTONIC when its client leaves, the handler when its
own runtime tells it so, and the difference is what the table shows.
"""

import argparse
import json
import shlex
import signal
import socket
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException

sys.dont_write_bytecode = True  # nothing beside the sources

from fronts import FRONTS
from network import OURS, Network
from responses import read_response
from serving import SERVERS, TARGET, Missing, Server
from ways import LARGE, SILENCE, SMALL, WAYS

SOON_MS = 1000
SILENT_SOON_MS = 9000  # strict: 4 s of silence and the probes, and room for the handler to hear of it
CANNOT_ASK_MS = 1000  # a client of HTTP/1.0 cannot be asked; its FIN is given this long
BETWEEN_CASES = 0.02  # so that no two leave at the same moment
BEFORE_LEAVING = 0.2

# Servers that cannot hear of it, whatever the front does, from so large an unread body on: Go reads on, and so
# sees the connection's end, only after the handler has read the body; Node once its buffer is not full.
DEAF = {"go": SMALL, "node": LARGE}


@dataclass
class Result:
    """What became of one client. `ms` is from its leaving until the handler knew."""

    server: str
    front: str
    way: str
    round: int
    outcome: str  # noticed, never, cut, served, or failed: and then `why`
    ms: float | None = None
    why: str | None = None
    interims: list | None = None


def connect(address):
    return socket.create_connection(address, 5)


def send(client, data):
    """Sends what the other side takes: a body that is not read may not fit."""
    client.settimeout(0.3)
    try:
        client.sendall(data)
    except TimeoutError:
        pass
    client.settimeout(None)


def play(server, front, way, round, options):
    """One client, from its request to what became of it."""
    case = f"{WAYS.index(way)}-{round}-{time.monotonic_ns()}"
    result = Result(server.name, front.name, way.name, round, "failed")
    try:
        client = connect(front.address)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        send(client, way.request(case, options.ms))
        if server.told(case, ["began"], 5)[0] is None:
            client.close()
            result.why = "the handler never began"
            return result
        time.sleep(BEFORE_LEAVING)
        if way.leave:
            conclude(result, way.leave(client), server, case, options)
        else:
            wait_for_answer(result, way, client, server, case, options)
    except OSError as error:
        result.why = str(error)
    return result


def conclude(result, left, server, case, options):
    """Waits until the handler has noticed, or has worked to its end in vain."""
    event, noticed = server.told(case, ["left", "finished"], options.ms / 1000 + 5)
    if event == "left":
        result.ms = (noticed - left) / 1e6
        # Before the leaving there was but a half-close: that was taken for it.
        result.outcome = "noticed" if result.ms >= 0 else "cut"
    elif event == "finished":
        result.outcome = "never"
    else:
        result.why = "the handler neither noticed nor came to its end"


def wait_for_answer(result, way, client, server, case, options):
    client.shutdown(socket.SHUT_WR)
    response = read_response(client, options.ms / 1000 + 5)
    client.close()
    result.interims = response.interims
    result.why = unlike_expected(response, way, options.ms)
    result.outcome = "cut" if result.why else "served"


def unlike_expected(response, way, ms):
    """What is wrong with an answer; None if it is all that the handler wrote."""
    body = b"worked\n"
    if way.path == "/pausing":
        body = b"piece 0\nend\n"
    if way.path == "/chunked":
        body = b"".join(b"piece %d\n" % piece for piece in range(ms // 100 + 1)) + b"end\n"
    if response.fault:
        return response.fault
    if response.status != 200:
        return f"status {response.status}"
    if response.body != body:
        return f"another body of {len(response.body)} bytes"
    if response.interims and way.version == "1.0":
        return "an interim response to a client of HTTP/1.0"
    return None


def greet(front):
    """Nothing is measured before plain requests, two on one connection, are answered well."""
    connection = HTTPConnection(*front.address, timeout=5)
    for path, body in (("/quick", b"q" * 1024), ("/chunked", b"piece 0\nend\n"), ("/quick", b"q" * 1024)):
        connection.request("GET", path)
        response = connection.getresponse()
        if (response.status, response.read()) != (200, body):
            raise ValueError(f"{path} was answered with {response.status} or a wrong body")
    connection.close()


def open_front(name, server, options):
    front = FRONTS[name](server, options)
    front.name = name
    return front


def leave_in_all_ways(server, front, options):
    greet(front)
    cases = [(way, round) for round in range(options.rounds) for way in options.ways]
    with ThreadPoolExecutor(len(cases)) as pool:
        running = []
        for way, round in cases:
            running.append(pool.submit(play, server, front, way, round, options))
            time.sleep(BETWEEN_CASES)
        return [future.result() for future in running]


def begin_silent(server, front, options):
    """Clients that will vanish: (result, case, client) of each, when their handlers work."""
    begun = []
    for round in range(options.rounds):
        case = f"silent-{round}-{time.monotonic_ns()}"
        result = Result(server.name, front.name, SILENCE.name, round, "failed")
        client = options.connect(front.address)
        client.sendall(SILENCE.request(case, options.ms))
        if server.told(case, ["began"], 5)[0] is None:
            result.why = "the handler never began"
        begun.append((result, case, client))
    return begun


# -- the table ---------------------------------------------------------------------------------------


def number(ms):
    return f"{ms:.2f}" if ms < 10 else f"{ms:.0f}"


def cell(results):
    """What became of one way in all rounds."""
    if not results:
        return ""
    times = [result.ms for result in results if result.outcome == "noticed"]
    others = [result.outcome for result in results if result.outcome != "noticed"]
    parts = [number(statistics.median(times))] if times else []
    for outcome in sorted(set(others)):
        count = others.count(outcome)
        parts.append(outcome if count == len(results) else f"{outcome} {count} of {len(results)}")
    return ", ".join(parts)


def table(results, servers, fronts, ways):
    lines = [
        "| server | the client's way | " + " | ".join(fronts) + " |",
        "|---|---|" + "---:|" * len(fronts),
    ]
    for server in servers:
        for way in ways:
            cells = [
                cell([r for r in results if (r.server, r.front, r.way) == (server, front, way.name)])
                for front in fronts
            ]
            if any(cells):
                lines.append(f"| {server} | {way.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def wide_table(results, servers, fronts, ways):
    """A row for each way; a column for each server, with the fronts side by side."""
    lines = [
        "| the client's way | " + " | ".join(f"{server}: {' / '.join(fronts)}" for server in servers) + " |",
        "|---|" + "---|" * len(servers),
    ]
    for way in ways:
        cells = []
        for server in servers:
            each = [
                cell([r for r in results if (r.server, r.front, r.way) == (server, front, way.name)])
                for front in fronts
            ]
            cells.append(" / ".join(each) if all(each) else "")
        if any(cells):
            lines.append(f"| {way.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def deaf(server, way):
    return server in DEAF and way.unread >= DEAF[server]


def faults(results, soon):
    """What deadpeer's proxy must not do, and did."""
    ways = {way.name: way for way in [*WAYS, SILENCE]}
    found = []
    for result in results:
        if result.front != "deadpeer":
            continue
        where = f"{result.server}, {result.way}, round {result.round + 1}"
        way = ways.get(result.way)
        if result.outcome == "failed":
            found.append(f"{where}: {result.why}")
        elif result.outcome == "cut" and way.version != "1.0":
            why = result.why or "before it left"
            found.append(f"{where}: a client that half-closed was cut ({why})")
        elif result.outcome == "never" and not deaf(result.server, way):
            found.append(f"{where}: the leaving was never noticed")
        elif result.outcome == "noticed" and result.ms > soon + (CANNOT_ASK_MS if way.version == "1.0" else 0):
            found.append(f"{where}: the leaving was noticed after {number(result.ms)} ms")
    return found


# -- the command line --------------------------------------------------------------------------------


def names(known):
    def parse(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return chosen

    return parse


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", type=names(SERVERS), default=list(SERVERS), help=",".join(SERVERS))
    parser.add_argument("--fronts", type=names(FRONTS), default=["none", "deadpeer"], help=",".join(FRONTS))
    parser.add_argument("--deadpeer", default=str(TARGET / "release" / "deadpeer"), metavar="PATH")
    parser.add_argument(
        "--deadpeer-options", type=shlex.split, default=[], metavar="TEXT", help="more options for its proxy"
    )
    parser.add_argument("--rounds", type=int, help="how often each way is taken (3; with --quick 1)")
    parser.add_argument("--ms", type=int, help="how long a handler works (4000; 1500; 15000)")
    parser.add_argument("--quick", action="store_true", help="one round, shorter work, fewer ways")
    parser.add_argument("--silent", action="store_true", help="only the loss without a word; root only")
    parser.add_argument("--wide", action="store_true", help="a row for each way, a column for each server")
    parser.add_argument("--json", metavar="FILE", help="all single results")
    parser.add_argument("--check", action="store_true", help="fail if deadpeer missed one or cut a client")
    parser.add_argument(
        "--require", type=names([*SERVERS, *FRONTS]), default=[], help="servers and fronts that must be there"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.ms = options.ms or (15000 if options.silent else 1500 if options.quick else 4000)
    options.ways = [way for way in WAYS if way.quick or not options.quick]
    options.address, options.within, options.connect = "127.0.0.1", [], connect
    return options


class Run:
    """What was measured, and what could not be."""

    def __init__(self, options):
        self.options = options
        self.results, self.events, self.missing = [], [], []

    def miss(self, name, why):
        self.missing.append(name)
        print(f"skipped: {name}: {why}", file=sys.stderr, flush=True)

    def close(self, server, front):
        """Ends a front, and keeps what it told."""
        fell = front.fell()
        if fell:
            self.results.append(Result(server.name, front.name, "all", 0, "failed", why=fell))
        front.end()
        if front.events:
            self.events.append({"server": server.name, "front": front.name, "events": list(front.events)})


def measure(run):
    options = run.options
    for name in options.servers:
        try:
            server = Server(name)
        except Missing as why:
            run.miss(name, why)
            continue
        try:
            for front in options.fronts:
                if front not in run.missing:
                    measure_pair(run, server, front)
        finally:
            server.end()


def measure_pair(run, server, name):
    try:
        front = open_front(name, server, run.options)
    except Missing as why:
        run.miss(name, why)
        return
    try:
        greet(front)
        run.results += leave_in_all_ways(server, front, run.options)
    except (OSError, HTTPException, ValueError) as error:
        run.results.append(Result(server.name, name, "all", 0, "failed", why=f"plain requests failed: {error}"))
    finally:
        run.close(server, front)


def measure_silence(run):
    options = run.options
    try:
        network = Network()
    except Missing as why:
        run.miss("silent", why)
        return
    options.address, options.within, options.connect = OURS, network.within, network.connect
    try:
        for front in options.fronts:
            with ExitStack() as ending:
                silence_behind(run, front, network, ending)
    finally:
        network.end()


def silence_behind(run, front_name, network, ending):
    """All servers at once behind fronts of one make: there is one cable, and it is cut once."""
    options = run.options
    pairs = []
    for name in options.servers:
        try:
            server = Server(name, "0.0.0.0", network.within)
        except Missing as why:
            run.miss(name, why)
            continue
        ending.callback(server.end)
        try:
            front = open_front(front_name, server, options)
        except Missing as why:
            run.miss(front_name, why)
            return
        ending.callback(run.close, server, front)
        pairs.append((server, front))
    begun = [(server, *one) for server, front in pairs for one in begin_silent(server, front, options)]
    cut_at = time.monotonic_ns()
    network.cut()
    for server, result, case, client in begun:
        if not result.why:
            conclude(result, cut_at, server, case, options)
        run.results.append(result)
        client.close()
    network.mend()


def main():
    options = arguments()
    # Ended from outside, we still end whom we began.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(options)
    began = time.monotonic()
    measure_silence(run) if options.silent else measure(run)
    took = time.monotonic() - began

    ways = [SILENCE] if options.silent else options.ways
    fronts = [front for front in options.fronts if any(r.front == front for r in run.results)]
    print((wide_table if options.wide else table)(run.results, options.servers, fronts, ways))
    print(f"\nMilliseconds from the leaving until the handler knew (median of {options.rounds}); handlers")
    print(f"worked for {options.ms / 1000:g} s. never: it worked to its end in vain. cut: the half-close of a")
    print("client that waits was taken for its leaving. served: it got all of its answer. Go hears nothing")
    print("before its handler has read the body, and Node nothing while 256 KiB of it wait.")
    print(f"Took {took:.0f} s.")
    if options.json:
        write_json(options.json, run, took)
    sys.exit(verdict(run))


def write_json(path, run, took):
    everything = {
        "rounds": run.options.rounds,
        "handler_ms": run.options.ms,
        "took_s": round(took, 1),
        "missing": sorted(set(run.missing)),
        "results": [asdict(result) for result in run.results],
        "front_events": [pair for pair in run.events if pair["events"]],
    }
    with open(path, "w") as file:
        json.dump(everything, file, indent=1)
        file.write("\n")


def verdict(run):
    """The exit code, and why it is not zero."""
    options, code = run.options, 0
    for name in sorted(set(options.require) & set(run.missing)):
        print(f"error: {name} is required and was not there", file=sys.stderr)
        code = 1
    if options.check:
        if "deadpeer" in run.missing or not any(result.front == "deadpeer" for result in run.results):
            print("check failed: not everything was measured behind deadpeer", file=sys.stderr)
            return 1
        found = faults(run.results, SILENT_SOON_MS if options.silent else SOON_MS)
        for fault in found:
            print(f"check failed: {fault}", file=sys.stderr)
        if found:
            return 1
        print("check passed: behind deadpeer no half-closing client of HTTP/1.1 was cut, and every leaving")
        print("was noticed that the server can hear of at all")
    return code


if __name__ == "__main__":
    main()
