"""How soon 1,000 clients that leave silent streams by FIN are noticed.

Real servers (uvicorn, Go, Node) begin a response, send a part of it, and then say nothing. Their clients
have read that part and close, one after the other in random order. Prints a table in Markdown: the time
from each close to the RST that reaches the server's socket, and to the moment at which the handler knows.

    streams.py                       three servers, deadpeer's proxy on both engines, and no proxy; root only
    streams.py --clients 200 --servers go

The RST is seen by a packet socket on loopback, whose stamps are the kernel's. The time of a close is the
driver's; the handler's is its runtime's own. Without a proxy the server is told by the client's FIN.
"""

import argparse
import ctypes
import random
import re
import socket
import struct
import sys
import threading
import time
from argparse import Namespace

sys.dont_write_bytecode = True  # nothing beside the sources

from fronts import FRONTS
from leaving import number, open_front
from serving import TARGET, Missing, Server

HOST = "127.0.0.1"
SILENCE_MS = 120_000  # longer than everything here
PATIENCE = 20.0

ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
SO_TIMESTAMPNS = 35
HEADERS = 14 + 20


class Watch:
    """Packets to one port that carry a request or end the connection, with the kernel's stamps."""

    def __init__(self, port):
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        except PermissionError:
            raise Missing("packet sockets need root") from None
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        # TCP, to the port, and with FIN, RST or PSH; loopback shows each packet twice, so only those that arrive.
        program = [
            (0x28, 0, 0, 0xFFFFF004),  # the packet's direction
            (0x15, 7, 0, 4),  # outgoing: dropped
            (0x30, 0, 0, 23),
            (0x15, 0, 5, 6),
            (0x28, 0, 0, HEADERS + 2),
            (0x15, 0, 3, port),
            (0x30, 0, 0, HEADERS + 13),
            (0x45, 0, 1, 0x0D),
            (0x06, 0, 0, 512),
            (0x06, 0, 0, 0),
        ]
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
        filter = struct.pack("HL", len(program), ctypes.addressof(code))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter)
        self.socket.bind(("lo", 0))
        self.offset = time.time_ns() - time.monotonic_ns()
        self.cases, self.ends = {}, {}  # by the client's port: the case, and when its RST or FIN came
        self.over = False
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        self.socket.settimeout(0.2)
        while not self.over:
            try:
                packet, extra, _, _ = self.socket.recvmsg(512, 128)
            except TimeoutError:
                continue
            seconds, nanoseconds = struct.unpack("qq", extra[0][2][:16])
            at = seconds * 10**9 + nanoseconds - self.offset
            port, flags = struct.unpack_from("!H", packet, HEADERS)[0], packet[HEADERS + 13]
            found = re.search(rb"\?id=([^& ]+)", packet)
            if found:
                self.cases[port] = found[1].decode()
            if flags & 0x05:
                self.ends.setdefault(port, at)

    def close(self):
        """When each case's connection ended, in nanoseconds of CLOCK_MONOTONIC."""
        self.over = True
        self.thread.join()
        self.socket.close()
        return {self.cases[port]: at for port, at in self.ends.items() if port in self.cases}


def connected(address):
    client = socket.create_connection(address, 5)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def begin(front, count):
    """Clients that have read the part of their response that there is."""
    clients = {}
    for number in range(count):
        client = connected(front.address)
        client.sendall(f"GET /pausing?id={number}&ms={SILENCE_MS} HTTP/1.1\r\nHost: server\r\n\r\n".encode())
        clients[str(number)] = client
    for client in clients.values():
        client.settimeout(PATIENCE)
        got = b""
        while b"piece 0\n\r\n" not in got:
            part = client.recv(4096)
            if not part:
                raise ValueError("a stream ended before its client left")
            got += part
    return clients


def leave(clients, gap):
    """Closes them in random order. Returns when each was closed."""
    order = list(clients)
    random.Random(1).shuffle(order)
    closed = {}
    due = time.monotonic()
    for case in order:
        due += gap
        time.sleep(max(0, due - time.monotonic()))
        closed[case] = time.monotonic_ns()
        clients[case].close()
    return closed


def heard(server, count):
    """When each handler knew, as far as they do in time."""
    until = time.monotonic() + PATIENCE
    while True:
        with server.changed:
            lines = list(server.lines)
        found = {line["id"]: int(line["ns"]) for line in lines if line["event"] == "left"}
        if len(found) >= count or time.monotonic() > until:
            return found
        time.sleep(0.1)


def delays(closed, known):
    """Milliseconds, sorted; and how many never came."""
    times = sorted((known[case] - at) / 1e6 for case, at in closed.items() if case in known)
    return times, len(closed) - len(times)


def measure(name, front_name, options):
    server = Server(name)
    try:
        front = open_front(front_name, server, options)
        watch = Watch(server.port)
        try:
            clients = begin(front, options.clients)
            time.sleep(0.5)
            closed = leave(clients, options.gap / 1000)
            known = heard(server, len(closed))
        finally:
            ends = watch.close()
            front.end()
        return delays(closed, ends), delays(closed, known)
    finally:
        server.end()


def percentile(times, part):
    return number(times[min(len(times) - 1, int(len(times) * part))]) if times else "-"


def cells(measured):
    times, missing = measured
    shown = " / ".join([percentile(times, part) for part in (0.5, 0.99)] + [number(times[-1]) if times else "-"])
    return shown + (f", {missing} never" if missing else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="uvicorn,go,node")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--gap", type=float, default=4, metavar="MS", help="between two closes (4)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--deadpeer", default=str(TARGET / "release" / "deadpeer"), metavar="PATH")
    parser.add_argument("--check", action="store_true", help="fail if a leaving was never noticed")
    options = parser.parse_args()
    missed = []
    print("| server | front | from the close to the RST: p50 / p99 / most | until the handler knew |")
    print("|---|---|---:|---:|")
    for _ in range(options.rounds):
        for name in options.servers.split(","):
            for label, front, more in (
                ("none", "none", []),
                ("deadpeer, io_uring", "deadpeer", ["--io", "uring"]),
                ("deadpeer, epoll", "deadpeer", ["--io", "epoll"]),
            ):
                settings = Namespace(deadpeer=options.deadpeer, deadpeer_options=more, address=HOST, within=[], silent=False,
                                     clients=options.clients, gap=options.gap)
                ends, known = measure(name, front, settings)
                print(f"| {name} | {label} | {cells(ends)} | {cells(known)} |", flush=True)
                if ends[1] or known[1]:
                    missed.append(f"{name}, {label}")
    print(f"\nMilliseconds; {options.clients:,} clients, one close every {options.gap:g} ms.")
    if options.check and missed:
        sys.exit(f"check failed: a leaving was never noticed: {'; '.join(missed)}")


if __name__ == "__main__":
    try:
        main()
    except Missing as why:
        sys.exit(f"cannot measure: {why}")
