#!/usr/bin/env python3
"""How long it takes to know what a FIN means: deadpeer's proxy asks the client, and the answer of one that has left
is a RST. Takes the time of each question from the proxy's own events, and the time from the close to the moment the
upstream met the RST from clocks of its own.

    python3 tests/http/asking.py [--count 2000] [--deadpeer target/release/deadpeer]
    python3 tests/http/asking.py --stream          clients that leave in the middle of a chunked response that pauses
    python3 tests/http/asking.py --answers 0,1,5   how many that half-close and wait are asked, by the handler's time
"""

import argparse
import json
import socket
import statistics
import subprocess
import threading
import time

WHOLE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
REQUEST = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


class Upstream:
    """Takes requests, sends each the beginning of a response, and notes when each connection was cut."""

    def __init__(self, begun, works=0.0):
        self.begun = begun
        self.works = works
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.cut = {}
        self.arrived = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.hold, args=(connection,), daemon=True).start()

    def hold(self, connection):
        request = connection.recv(4096)
        time.sleep(self.works)
        connection.sendall(self.begun)
        self.arrived.release()
        try:
            connection.recv(4096)
        except ConnectionResetError:
            pass
        self.cut[request.split()[1]] = time.monotonic_ns()
        connection.close()
        self.left.release()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def start(deadpeer, upstream):
    port = upstream.listener.getsockname()[1]
    command = [deadpeer, "proxy", "--listen", "127.0.0.1:0", "--drain", "0s", "--upstream", f"127.0.0.1:{port}"]
    proxy = subprocess.Popen([*command, "--threads", "1", "--events", "-"], stdout=subprocess.PIPE)
    host, port = json.loads(proxy.stdout.readline())["address"].rsplit(":", 1)
    return proxy, (host, int(port))


def half_close(deadpeer, works, count):
    """Asks as a client that half-closes. Returns how many got a question, and the times to the end in ms."""
    proxy, address = start(deadpeer, Upstream(WHOLE, works))
    asked, times = 0, []
    for _ in range(count):
        with socket.create_connection(address) as client:
            began = time.monotonic()
            client.sendall(REQUEST)
            client.shutdown(socket.SHUT_WR)
            got = b""
            while part := client.recv(4096):
                got += part
            times.append((time.monotonic() - began) * 1000)
        if not got.endswith(WHOLE):
            raise SystemExit(f"a client got {got}")
        asked += got != WHOLE
    proxy.terminate()
    proxy.wait()
    return asked, times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--deadpeer", default="target/release/deadpeer", metavar="PATH")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--stream", action="store_true", help="leave when a chunked response has begun and pauses")
    parser.add_argument("--answers", metavar="MS,...", help="clients half-close, and the handler works so long")
    options = parser.parse_args()
    if options.answers:
        print("| the handler works for | asked | request to end, ms: p50 | p99 |\n|---|---:|---:|---:|")
        for works in options.answers.split(","):
            asked, times = half_close(options.deadpeer, float(works) / 1000, options.count)
            print(f"| {works} ms | {asked} of {options.count} | {statistics.median(times):.2f} | {percentile(times, 0.99):.2f} |")
        return
    begun = BEGUN if options.stream else b""
    upstream = Upstream(begun)
    proxy, address = start(options.deadpeer, upstream)
    asked = []

    def read_events():
        for line in proxy.stdout:
            event = json.loads(line)
            if event["event"] == "interrupted":
                proof = event["proof"]
                asked.append(None if proof.get("acknowledged", True) else proof["asked_us"])

    reader = threading.Thread(target=read_events)
    reader.start()
    noticed = []
    for number in range(options.count):
        client = socket.create_connection(address)
        client.sendall(REQUEST.replace(b"/slow", b"/%d" % number))
        upstream.arrived.acquire()
        got = b""
        while len(got) < len(begun):  # a close over unread bytes would be a RST
            got += client.recv(len(begun) - len(got))
        left = time.monotonic_ns()
        client.close()
        upstream.left.acquire()
        noticed.append((upstream.cut[b"/%d" % number] - left) / 1000)
    proxy.terminate()
    proxy.wait()
    reader.join()
    times = [time for time in asked if time is not None]
    if len(times) != options.count:
        raise SystemExit(f"{options.count} left, and {len(times)} were asked and told")
    print("| | p50 | p90 | p99 | max |")
    print("|---|---:|---:|---:|---:|")
    for name, values in [("question to answer, us", times), ("close to the upstream's RST, us", noticed)]:
        figures = [statistics.median(values), *(percentile(values, share) for share in (0.9, 0.99)), max(values)]
        print(f"| {name} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
