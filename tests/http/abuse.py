#!/usr/bin/env python3
"""What abuse of deadpeer's proxy costs: no other client may be slowed down or fail for it.

    cargo build --release
    python3 tests/http/abuse.py                     # five minutes on a quiet machine, a Markdown table
    python3 tests/http/abuse.py --quick --check     # a tenth of everything, 90 s; fails at a fault
    python3 tests/http/abuse.py --only churn --connects 1000000

For each abuse there are a fresh proxy and a fresh upstream, and a good client: one connection that
asks at a fixed pace, whether answered or not, first alone and then while the abuse goes on. Its
latency runs from the instant at which a request was due, by CLOCK_MONOTONIC. The proxy (one thread)
has a core of its own; the good client, the abusers and the upstreams share the other one, the good
client and its upstream before the rest: it is the proxy that is to be measured, and not how Python
waits for Python.

Memory is the proxy's own (VmHWM from the beginning of the abuse on); what lies in sockets is the
kernel's, and the table has TCP's of the whole machine beside it.
"""

import argparse
import array
import contextlib
import errno
import gc
import heapq
import json
import multiprocessing
import os
import resource
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path

sys.dont_write_bytecode = True  # nothing beside the sources

from serving import TARGET, Missing, end

HOST = "127.0.0.1"
FORK = multiprocessing.get_context("fork")
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20
SLACK = 4 * MIB  # of memory: what a proxy takes for its first work
PATIENCE = 60.0  # for whatever has to come to its end
LINGER = 2.0  # the proxy's own, in src/limits.rs
IDLE = 3.0  # for how long it is watched when everything is over
IDLE_SHARE = 0.01  # of a core, and that is idle

HEAD = b"Host: abuse\r\n\r\n"
GOOD = b"GET /good HTTP/1.1\r\n" + HEAD
GOOD_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + b"g" * 1024
CLOSING = b"GET /close HTTP/1.1\r\nConnection: close\r\n" + HEAD
CLOSING_ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
PIPED = b"GET /kib HTTP/1.1\r\n" + HEAD
PIPED_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + b"k" * 1024
SLOW = b"GET /slow HTTP/1.1\r\n" + HEAD
SLOW_SECONDS = 1.0
ZEROS = memoryview(bytes(256 << 10))


def say(text):
    print(text, file=sys.stderr, flush=True)


# -- processes ---------------------------------------------------------------------------------------


class Ended(Exception):
    """A process of ours ended where it had something to say."""


class Process:
    """A function in a process of its own, and a pipe to it: its first argument is the other end."""

    def __init__(self, function, *arguments, core, urgent=False):
        self.pipe, theirs = FORK.Pipe()
        self.name = function.__name__
        work = (function, theirs, arguments, core, urgent)
        self.process = FORK.Process(target=run_in_process, args=work, daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, word):
        with contextlib.suppress(OSError):
            self.pipe.send(word)

    def hear(self, seconds):
        """What it says next."""
        try:
            if self.pipe.poll(seconds):
                return self.pipe.recv()
        except (EOFError, OSError):
            raise Ended(f"{self.name} ended without a word") from None
        raise Ended(f"{self.name} said nothing for {seconds:g} s")

    def end(self):
        self.pipe.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_in_process(function, pipe, arguments, core, urgent):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle(core, urgent)
    gc.disable()
    function(pipe, *arguments)


def settle(core, urgent):
    """On its core, before the others or behind them, as far as that is permitted."""
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(OSError):
        if urgent:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        else:
            os.nice(10)


def settle_proxy(core):
    """On its core, before the rest of the machine as far as that is permitted."""
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    # Where the kernel shares time among sessions first, nice alone is of no use against another session's work.
    with contextlib.suppress(OSError):
        os.setsid()
        Path("/proc/self/autogroup").write_text("-15")


# -- the upstreams -----------------------------------------------------------------------------------


def good_upstream(pipe, listener):
    """Serves the first connection, the good client's, and no other."""
    client = listener.accept()[0]
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    held = b""
    pipe.send("taken")
    while data := client.recv(65536):
        held += data
        while held.startswith(GOOD):
            held = held[len(GOOD) :]
            client.sendall(GOOD_ANSWER)


class Served:
    """One connection of the upstream: what came and is not understood yet, and what is to go out."""

    __slots__ = ("sock", "held", "body", "out", "zeros", "close", "working")

    def __init__(self, sock):
        self.sock, self.held, self.out = sock, b"", b""
        self.body = self.zeros = self.working = 0
        self.close = False


class Upstream:
    """Answers the abusers by path: /close, /kib, /slow, /zeros/N, and bodies with what they were."""

    def __init__(self, pipe, listener):
        self.pipe, self.listener = pipe, listener
        self.epoll = select.epoll()
        self.served, self.slow = {}, []
        self.counts = Counter()

    def run(self):
        self.listener.setblocking(False)
        listening, told = self.listener.fileno(), self.pipe.fileno()
        self.epoll.register(listening, select.EPOLLIN)
        self.epoll.register(told, select.EPOLLIN)
        while True:
            wait = max(0, self.slow[0][0] - time.monotonic()) if self.slow else -1
            for fd, mask in self.epoll.poll(wait, 512):
                if fd == listening:
                    self.accept()
                elif fd == told:
                    return self.pipe.send(dict(self.counts))
                else:
                    self.on_ready(fd, mask)
            self.answer_slow()

    def accept(self):
        for _ in range(64):
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            sock.setblocking(False)
            self.served[sock.fileno()] = Served(sock)
            self.epoll.register(sock.fileno(), select.EPOLLIN)
            self.counts["connections"] += 1

    def answer_slow(self):
        now = time.monotonic()
        while self.slow and self.slow[0][0] <= now:
            _, fd, born = heapq.heappop(self.slow)
            served = self.served.get(fd)
            if served and served.working == born:
                served.working = 0
                self.counts["worked for"] += 1
                self.send(served, CLOSING_ANSWER, close=True)

    def on_ready(self, fd, mask):
        served = self.served[fd]
        try:
            if mask & select.EPOLLOUT:
                self.flush(served)
            elif data := served.sock.recv(262144):
                served.held = served.held + data if served.held else data
                self.follow(served)
            else:
                self.leave(served, "closed")
        except BlockingIOError:
            pass
        except OSError:
            self.leave(served, "reset")

    def follow(self, served):
        while served.held and not served.close:
            if served.body:
                taken = min(served.body, len(served.held))
                served.body -= taken
                served.held = served.held[taken:]
                if served.body:
                    return
                self.send(served, CLOSING_ANSWER, close=True)
                continue
            head, mark, rest = served.held.partition(b"\r\n\r\n")
            if not mark:
                return
            served.held = rest
            self.counts["requests"] += 1
            path = head.split(b" ", 2)[1]
            if path == b"/close":
                self.send(served, CLOSING_ANSWER, close=True)
            elif path == b"/kib":
                self.send(served, PIPED_ANSWER)
            elif path == b"/slow":
                served.working = time.monotonic_ns()
                slow = (time.monotonic() + SLOW_SECONDS, served.sock.fileno(), served.working)
                heapq.heappush(self.slow, slow)
            elif path.startswith(b"/zeros/"):
                served.zeros = int(path[7:])
                self.send(served, zeros_head(served.zeros))
            else:
                served.body = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])

    def send(self, served, data, close=False):
        served.out += data
        served.close = served.close or close
        self.flush(served)

    def flush(self, served):
        fd = served.sock.fileno()
        try:
            while served.out:
                served.out = served.out[served.sock.send(served.out) :]
            for _ in range(4):
                if served.zeros:
                    served.zeros -= served.sock.send(ZEROS[: served.zeros])
        except BlockingIOError:
            pass
        if served.out or served.zeros:
            return self.epoll.modify(fd, select.EPOLLOUT)
        if served.close:
            return self.leave(served, "answered")
        self.epoll.modify(fd, select.EPOLLIN)

    def leave(self, served, how):
        if served.working:
            how = "left while working"
        self.counts[how] += 1
        del self.served[served.sock.fileno()]
        served.working = 0
        served.sock.close()


def zeros_head(size):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size


def abused_upstream(pipe, listener):
    Upstream(pipe, listener).run()


# -- the good client ---------------------------------------------------------------------------------


class Good:
    """One connection that asks at a fixed pace. Told "run", it asks until it is told "stop"."""

    def __init__(self, pipe, port, rate):
        self.pipe, self.port, self.period = pipe, port, round(1e9 / rate)
        self.client = None
        self.errors = Counter()

    def run(self):
        self.ask()
        self.pipe.send(dict(self.errors))
        while True:
            try:
                self.pipe.recv()
            except EOFError:
                return
            self.pipe.send(self.pace())

    def pace(self):
        latencies, self.errors = array.array("q"), Counter()
        due, stop = time.monotonic_ns(), None
        while stop is None or due <= stop:
            left = due - time.monotonic_ns()
            if left > 0:
                time.sleep(left / 1e9)
            self.ask()
            latencies.append(time.monotonic_ns() - due)
            due += self.period
            if stop is None and self.pipe.poll():
                self.pipe.recv()
                stop = time.monotonic_ns()
        each = round(1e9 / self.period)
        seconds = [latencies[at : at + each] for at in range(0, len(latencies), each)]
        by_second = [round(max(second) / 1e6, 1) for second in seconds]
        return {**summarised(latencies), "max_ms_by_second": by_second, "errors": dict(self.errors)}

    def ask(self):
        try:
            if not self.client:
                self.client = socket.create_connection((HOST, self.port), 10)
                self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.client.sendall(GOOD)
            got = self.client.recv(65536)
            while len(got) < len(GOOD_ANSWER) and (more := self.client.recv(65536)):
                got += more
            if got == GOOD_ANSWER:
                return
            self.errors["another answer" if got else "the connection ended"] += 1
        except OSError as error:
            self.errors[error.strerror or str(error)] += 1
        with contextlib.suppress(OSError, AttributeError):
            self.client.close()
        self.client = None


def summarised(latencies):
    """Of nanoseconds: how many, and p50, p99 and the longest in milliseconds."""
    ordered = sorted(latencies)

    def at(share):
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6, 3)

    return {"requests": len(ordered), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}


def good_client(pipe, port, rate):
    Good(pipe, port, rate).run()


# -- the abusers -------------------------------------------------------------------------------------


class Member:
    """One of a crowd."""

    __slots__ = ("sock", "data", "sent", "got", "born", "stuck")

    def __init__(self, sock, data):
        self.sock, self.data, self.sent, self.got = sock, data, 0, b""
        self.born = time.monotonic()
        self.stuck = False  # waits for room


class Crowd:
    """So many connections at once, each of which says its piece and waits for its end.

    A client that has met it is followed by another one until there were `total`, or until `seconds` are over.
    With `drip`, one byte is said each so many seconds, and the piece has no end.
    """

    def __init__(self, port, size, pieces, drip=None, total=None, seconds=None):
        self.port, self.size, self.pieces, self.drip = port, size, pieces, drip
        self.total = total or sys.maxsize
        self.until = time.monotonic() + seconds if seconds else float("inf")
        self.epoll = select.epoll()
        self.members, self.dripping = {}, deque()
        self.begun = 0
        self.outcomes = Counter()
        self.shortest, self.longest = float("inf"), 0.0

    def run(self):
        while True:
            self.renew()
            if not self.members:
                break
            wait = 1.0 if self.is_full() else 0.0
            if self.dripping:
                wait = min(wait, max(0.0, self.dripping[0][0] - time.monotonic()))
            for fd, mask in self.epoll.poll(wait, 1024):
                self.on_ready(self.members[fd], mask)
            self.let_drip()
            self.give_up()
        lives = [round(self.shortest, 3), round(self.longest, 3)]
        return {"outcomes": dict(self.outcomes), "lives_s": lives}

    def is_full(self):
        whole = len(self.members) >= self.size or self.begun >= self.total
        return whole or time.monotonic() >= self.until

    def renew(self):
        for _ in range(256):  # the others have to be heard in between
            if self.is_full():
                return
            sock = socket.socket()
            sock.setblocking(False)
            error = sock.connect_ex((HOST, self.port))
            if error not in (0, errno.EINPROGRESS):
                sock.close()
                self.outcomes[f"no connect: {os.strerror(error)}"] += 1
                self.begun += 1
                continue
            member = Member(sock, self.pieces[self.begun % len(self.pieces)])
            self.begun += 1
            self.members[sock.fileno()] = member
            self.epoll.register(sock.fileno(), select.EPOLLIN)
            if self.drip:
                self.dripping.append((member.born, member))
            elif member.data:
                self.send(member)

    def send(self, member):
        stuck = False
        try:
            while member.sent < len(member.data):
                member.sent += member.sock.send(member.data[member.sent :])
        except BlockingIOError:
            stuck = True
        except OSError:
            pass  # what was answered before may still be read
        if stuck != member.stuck:
            member.stuck = stuck
            self.epoll.modify(member.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if stuck else 0))

    def let_drip(self):
        now = time.monotonic()
        while self.dripping and self.dripping[0][0] <= now:
            due, member = self.dripping.popleft()
            if member.sock.fileno() < 0:
                continue
            with contextlib.suppress(OSError):
                member.sent += member.sock.send(member.data[member.sent % len(member.data) :][:1])
            self.dripping.append((due + self.drip, member))

    def on_ready(self, member, mask):
        try:
            if mask & select.EPOLLOUT and member.sent < len(member.data):
                self.send(member)
            if not mask & ~select.EPOLLOUT:
                return
            data = member.sock.recv(65536)
            if data:
                member.got += data
            else:
                self.over(member, answer_of(member.got) or "closed")
        except BlockingIOError:
            pass
        except OSError as error:
            answer = answer_of(member.got)
            self.over(member, f"{answer}, then {error.strerror}" if answer else error.strerror)

    def over(self, member, outcome):
        self.outcomes[outcome] += 1
        lived = time.monotonic() - member.born
        self.shortest, self.longest = min(self.shortest, lived), max(self.longest, lived)
        del self.members[member.sock.fileno()]
        member.sock.close()

    def give_up(self):
        """The oldest come first: a dictionary keeps the order."""
        now = time.monotonic()
        while self.members:
            member = next(iter(self.members.values()))
            if now - member.born < PATIENCE:
                return
            self.over(member, (answer_of(member.got) or "nothing") + ", and no end")


def answer_of(got):
    """The status of an answer, if there was one."""
    if not got:
        return None
    if not got.startswith(b"HTTP/1.1 "):
        return "no HTTP"
    head, mark, body = got.partition(b"\r\n\r\n")
    size = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    whole = mark and size.isdigit() and len(body) == int(size)
    return got[9:12].decode() + ("" if whole else " in part")


def crowd(pipe, *arguments):
    pipe.send(Crowd(*arguments).run())


def resetters(pipe, port, total):
    """Connect, and abort with a RST."""
    outcomes, linger = Counter(), struct.pack("ii", 1, 0)
    for _ in range(total):
        with socket.socket() as client:
            client.settimeout(10)
            try:
                client.connect((HOST, port))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                outcomes["reset by us"] += 1
            except OSError as error:
                outcomes[error.strerror or str(error)] += 1
    pipe.send({"outcomes": dict(outcomes)})


def unread(pipe, port, total, size, seconds):
    """Ask for much, and read nothing of it."""
    until, outcomes, clients = time.monotonic() + seconds, Counter(), []
    epoll = select.epoll()
    for _ in range(total):
        client = socket.create_connection((HOST, port), 10)
        client.sendall(b"GET /zeros/%d HTTP/1.1\r\n" % size + HEAD)
        epoll.register(client.fileno(), 0)  # ends only
        clients.append(client)
    while (left := until - time.monotonic()) > 0:
        for fd, _ in epoll.poll(left):
            outcomes["ended by the proxy"] += 1
            epoll.unregister(fd)
    outcomes["held until we left"] = total - outcomes["ended by the proxy"]
    for client in clients:
        client.close()
    pipe.send({"outcomes": dict(outcomes)})


def slow_reader(pipe, port, size, seconds):
    """Reads little for a while, and then all of it."""
    until = time.monotonic() + seconds
    want = len(zeros_head(size)) + size
    client = socket.create_connection((HOST, port), 10)
    client.sendall(b"GET /zeros/%d HTTP/1.1\r\nConnection: close\r\n" % size + HEAD)
    client.settimeout(10)
    got, slowly, buffer = 0, 0, bytearray(MIB)
    try:
        while got < want:
            if time.monotonic() < until:
                time.sleep(0.01)
                count = client.recv_into(buffer, 65536)
                slowly += count
            else:
                count = client.recv_into(buffer)
            if not count:
                break
            got += count
        outcome = "200 whole" if got == want else f"200, {got} of {want} bytes"
    except OSError as error:
        outcome = f"200, {got} of {want} bytes, then {error.strerror or error}"
    client.close()
    pipe.send({"outcomes": {outcome: 1}, "read_slowly_bytes": slowly})


def pipelines(pipe, port, total, requests, seconds):
    """Write requests on and on, and only after a while read the answers, which must be all."""
    reading = time.monotonic() + seconds
    epoll, outcomes, members = select.epoll(), Counter(), {}
    asked = memoryview(PIPED * requests)
    want = len(PIPED_ANSWER) * requests
    # From any place in the answers on, as many bytes as one read may give.
    pattern = PIPED_ANSWER * (MIB // len(PIPED_ANSWER) + 2)
    for _ in range(total):
        client = socket.create_connection((HOST, port), 10)
        client.setblocking(False)
        member = members[client.fileno()] = Member(client, asked)
        member.got = 0
        epoll.register(client.fileno(), select.EPOLLOUT)
    sent_unread, last = None, time.monotonic()

    def over(member, outcome):
        outcomes[outcome] += 1
        del members[member.sock.fileno()]
        member.sock.close()

    while members:
        now = time.monotonic()
        if sent_unread is None and now >= reading:
            sent_unread, last = sum(member.sent for member in members.values()), now
            for fd in members:
                epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        if now - last > max(seconds, PATIENCE):
            for member in list(members.values()):
                over(member, f"stuck after {member.got // len(PIPED_ANSWER)} answers")
        for fd, mask in epoll.poll(0.05 if sent_unread is None else 1.0):
            member = members[fd]
            try:
                if mask & select.EPOLLOUT:
                    member.sent += member.sock.send(asked[member.sent : member.sent + MIB])
                    if member.sent == len(asked):
                        epoll.modify(fd, 0 if sent_unread is None else select.EPOLLIN)
                if mask & ~select.EPOLLOUT:
                    data, last = member.sock.recv(MIB), time.monotonic()
                    at = member.got % len(PIPED_ANSWER)
                    member.got += len(data)
                    if data != pattern[at : at + len(data)]:
                        over(member, "another answer")
                    elif member.got == want:
                        over(member, "all answered")
                    elif not data:
                        over(member, f"ended after {member.got // len(PIPED_ANSWER)} answers")
            except BlockingIOError:
                pass
            except OSError as error:
                over(member, error.strerror)
    written = round((sent_unread or 0) / total / len(PIPED))
    pipe.send({"outcomes": dict(outcomes), "requests_written_unread": written})


def leavers(pipe, port, total, waves):
    """Ask for what takes a second, and leave after 0.3 s: with a FIN or with a RST, in turns."""
    outcomes, linger = Counter(), struct.pack("ii", 1, 0)
    for wave in range(waves):
        began, clients = time.monotonic(), deque()
        for _ in range(total * (wave + 1) // waves - total * wave // waves):
            client = socket.create_connection((HOST, port), 10)
            client.sendall(SLOW)
            clients.append((time.monotonic(), client))
            while clients and time.monotonic() - clients[0][0] > 0.3:
                leave(*clients.popleft(), linger, outcomes)
        while clients:
            time.sleep(max(0.0, clients[0][0] + 0.3 - time.monotonic()))
            leave(*clients.popleft(), linger, outcomes)
        time.sleep(max(0.0, began + 2 * SLOW_SECONDS - time.monotonic()))
    pipe.send({"outcomes": dict(outcomes)})


def leave(asked, client, linger, outcomes):
    if time.monotonic() - asked > 0.8 * SLOW_SECONDS:
        outcomes["left too late"] += 1  # this machine's fault; it may be answered
    elif sum(outcomes.values()) % 2:
        outcomes["left with a RST"] += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    else:
        outcomes["left with a FIN"] += 1
    client.close()


# -- the abuses --------------------------------------------------------------------------------------


class Abuse:
    """One abuse: its options for the proxy, its processes, and what has to come of it.

    `bound` is by how many bytes the proxy's memory may grow. `wants` are the only outcomes that
    there may be, and `count` how many of them, where that is known. `told` are interruptions by
    phase that the proxy has to tell of, of the abusers' connections.
    """

    options = ()
    count = None
    told = {}
    note = ""

    def __init__(self, options):
        self.seconds = options.seconds
        self.tenth = 10 if options.quick else 1

    def scaled(self, number):
        return max(1, number // self.tenth)

    def notes(self, said, upstream):
        """What else is worth a word."""
        return ""

    def faults(self, said, upstream):
        return []


class Slowloris(Abuse):
    """Heads that come by one byte each half second."""

    options = ("--head-timeout", "2s")
    wants = {"408"}

    def __init__(self, options):
        super().__init__(options)
        self.size = self.scaled(2000)
        self.title = f"slowloris: {self.size:,} heads at once, by a byte each 0.5 s"
        self.bound = self.size * 2048

    def work(self, port):
        piece = b"GET / HTTP/1.1\r\nX-Slow: " + b"s" * 100
        return [(crowd, port, self.size, [piece], 0.5, None, self.seconds)]

    def notes(self, said, upstream):
        return f"each ended after {said[0]['lives_s'][0]:.2f} to {said[0]['lives_s'][1]:.2f} s"

    def faults(self, said, upstream):
        longest = said[0]["lives_s"][1]
        return [f"one lasted {longest} s with a head timeout of 2 s"] if longest > 2 + LINGER else []


class Silent(Abuse):
    """Connections that say nothing."""

    options = ("--head-timeout", "4s")
    wants = {"closed"}

    def __init__(self, options):
        super().__init__(options)
        self.size = self.scaled(5000)
        self.title = f"silence: {self.size:,} connections at once that say nothing"
        self.bound = self.size * 2048

    def work(self, port):
        return [(crowd, port, self.size, [b""], None, None, self.seconds)]

    def notes(self, said, upstream):
        return f"each ended after {said[0]['lives_s'][0]:.2f} to {said[0]['lives_s'][1]:.2f} s"

    def faults(self, said, upstream):
        longest = said[0]["lives_s"][1]
        return [f"one lasted {longest} s with a head timeout of 4 s"] if longest > 4 + LINGER else []


class Heads(Abuse):
    """Heads of more than 64 KiB: a header, a target, many headers, and one of 1 MiB."""

    options = ("--request-memory", str(64 * MIB))
    wants = {"431"}

    def __init__(self, options):
        super().__init__(options)
        self.size = self.scaled(50)
        self.title = f"heads of 66 KiB to 1 MiB, on {self.size} connections at once"
        self.bound = self.size * 256 * 1024

    def work(self, port):
        begin = b"GET / HTTP/1.1\r\n"
        pieces = [
            begin + b"X: " + b"x" * 66 * 1024 + b"\r\n" + HEAD,
            b"GET /" + b"t" * 70 * 1024 + b" HTTP/1.1\r\n" + HEAD,
            begin + b"X-Header: with something to say for itself\r\n" * 2000 + HEAD,
            begin + b"X: " + b"x" * MIB + b"\r\n" + HEAD,
        ]
        return [(crowd, port, self.size, pieces, None, None, self.seconds)]

    def notes(self, said, upstream):
        return f"{sum(said[0]['outcomes'].values()) / self.seconds:,.0f}/s"


class Unread(Abuse):
    """Large answers that are not read."""

    wants = {"held until we left"}

    def __init__(self, options):
        super().__init__(options)
        self.count = self.scaled(200)
        self.title = f"{self.count} clients that ask for 50 MB and do not read"
        self.bound = self.count * 128 * 1024
        self.told = {"sending": self.count}

    def work(self, port):
        return [(unread, port, self.count, 50_000_000, self.seconds)]


class Flood(Abuse):
    """An upstream that sends much more than its client takes."""

    wants = {"200 whole"}
    count = 1
    bound = MIB

    def __init__(self, options):
        super().__init__(options)
        self.size = self.scaled(1 << 30)
        self.title = f"an upstream that floods: {self.size // MIB:,} MiB to a client that reads slowly"

    def work(self, port):
        return [(slow_reader, port, self.size, self.seconds)]

    def notes(self, said, upstream):
        return f"{said[0]['read_slowly_bytes'] / MIB:,.0f} MiB of them slowly"


class Bodies(Abuse):
    """Bodies that stop before their end."""

    memory = 16 * MIB
    options = ("--body-timeout", "2s", "--request-memory", str(memory))
    wants = {"408"}
    # What is held, and that a buffer that grows is there twice for a moment.
    bound = memory + memory // 4

    def __init__(self, options):
        super().__init__(options)
        self.size = self.scaled(500)
        self.title = f"{self.size} bodies at once that stop after 150,000 of 200,000 bytes"

    def work(self, port):
        piece = b"POST /body HTTP/1.1\r\nContent-Length: 200000\r\n" + HEAD + b"b" * 150_000
        return [(crowd, port, self.size, [piece], None, None, self.seconds)]

    def notes(self, said, upstream):
        least, longest = said[0]["lives_s"]
        sent = self.size * 150_000 / MIB
        return f"{sent:.0f} MiB at once, {self.memory // MIB} may be held; ended after {least:.2f} to {longest:.2f} s"


class Churn(Abuse):
    """Connects, each for one request."""

    # As little as can be asked for: bytes that are gone and still counted would fill the default
    # only after some million connections.
    options = ("--request-memory", "65536")
    wants = {"200"}
    bound = 0

    def __init__(self, options):
        super().__init__(options)
        self.count = self.scaled(options.connects)
        self.title = f"churn: {self.count:,} connections, each for one request"

    def work(self, port):
        processes = min(4, self.count)
        shares = [self.count * (at + 1) // processes - self.count * at // processes for at in range(processes)]
        return [(crowd, port, 16, [CLOSING], None, share, None) for share in shares]


class Resets(Abuse):
    """Connects that are reset at once."""

    wants = {"reset by us"}
    bound = 0

    def __init__(self, options):
        super().__init__(options)
        self.count = self.scaled(50_000)
        self.title = f"{self.count:,} connections that are reset at once"

    def work(self, port):
        return [(resetters, port, self.count // 2), (resetters, port, self.count - self.count // 2)]


class Pipelines(Abuse):
    """Requests on and on whose answers are not read for a while."""

    wants = {"all answered"}

    def __init__(self, options):
        super().__init__(options)
        self.count = self.scaled(50)
        self.requests = self.scaled(20_000)
        self.title = f"{self.count} pipelines of {self.requests:,} requests, not read for {self.seconds / 2:g} s"
        self.bound = self.count * 256 * 1024

    def work(self, port):
        return [(pipelines, port, self.count, self.requests, self.seconds / 2)]

    def notes(self, said, upstream):
        return f"{said[0]['requests_written_unread']:,} requests each written before the first answer was read"


class Leaving(Abuse):
    """Clients that leave while the handler works."""

    wants = {"left with a FIN", "left with a RST"}

    def __init__(self, options):
        super().__init__(options)
        self.count = self.scaled(2000)
        self.waves = max(1, min(4, round(self.seconds / 2.5)))
        self.title = f"{self.count:,} clients that leave while the handler works, in {self.waves} waves"
        self.bound = self.count * 4096
        self.told = {"waiting": self.count}

    def work(self, port):
        return [(leavers, port, self.count, self.waves)]

    def notes(self, said, upstream):
        return f"{upstream.get('left while working', 0):,} handlers noticed"

    def faults(self, said, upstream):
        noticed = upstream.get("left while working", 0)
        return [] if noticed == self.count else [f"{noticed} of {self.count} handlers noticed"]


ABUSES = {
    "slowloris": Slowloris, "silent": Silent, "heads": Heads, "unread": Unread, "flood": Flood,
    "bodies": Bodies, "churn": Churn, "resets": Resets, "pipelines": Pipelines, "leaving": Leaving,
}


# -- the proxy ---------------------------------------------------------------------------------------


class Proxy:
    def __init__(self, options, folder, upstream_port, more):
        if not Path(options.deadpeer).exists():
            raise Missing(f"no deadpeer at {options.deadpeer}: cargo build --release, or --deadpeer PATH")
        self.events = Path(folder, "events")
        command = [options.deadpeer, "proxy", "--listen", f"{HOST}:0", "--drain", "0s", "--upstream", f"{HOST}:{upstream_port}"]
        command += ["--threads", "1", "--events", str(self.events), *more, *options.deadpeer_options]
        self.process = subprocess.Popen(command, preexec_fn=lambda: settle_proxy(options.proxy_core))
        self.pid = self.process.pid
        until = time.monotonic() + 5
        while time.monotonic() < until and self.process.poll() is None:
            lines = self.lines()
            if lines:
                self.port = int(lines[0]["address"].rpartition(":")[2])
                self.engine = lines[0]["engine"]
                return
            time.sleep(0.01)
        end(self.process)
        raise Missing(f"deadpeer proxy did not begin to listen (exit code {self.process.poll()})")

    def lines(self):
        with contextlib.suppress(OSError):
            whole, mark, _ = self.events.read_bytes().rpartition(b"\n")
            if mark:
                return [json.loads(line) for line in whole.splitlines()]
        return []

    def memory(self, name="VmRSS"):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise Ended("the proxy has ended")

    def forget_peak(self):
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self):
        """CPU seconds of all its threads: the process clock of another process, clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def stop(self):
        """Its exit code."""
        end(self.process)
        return self.process.returncode


def tcp_memory():
    """What TCP holds in the sockets of this machine."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * PAGE
    return 0


# -- measuring ---------------------------------------------------------------------------------------


class Peaks:
    def __init__(self, proxy):
        self.proxy = proxy
        self.descriptors = self.tcp = 0

    def look(self):
        self.descriptors = max(self.descriptors, self.proxy.descriptors())
        self.tcp = max(self.tcp, tcp_memory())


def measure(name, options):
    """One abuse: what is to be told of it."""
    with contextlib.ExitStack() as ending, tempfile.TemporaryDirectory() as folder:
        return measure_within(ABUSES[name](options), name, options, ending, folder)


def measure_within(abuse, name, options, ending, folder):
    def begin(function, *arguments, urgent=False):
        process = Process(function, *arguments, core=options.client_core, urgent=urgent)
        ending.callback(process.end)
        return process

    listener = ending.enter_context(socket.create_server((HOST, 0), backlog=4096))
    proxy = Proxy(options, folder, listener.getsockname()[1], abuse.options)
    ending.callback(proxy.stop)
    special = begin(good_upstream, listener, urgent=True)
    good = begin(good_client, proxy.port, options.rate, urgent=True)
    special.hear(10)
    if errors := good.hear(10):
        raise Ended(f"the good client's first request failed: {errors}")
    upstream = begin(abused_upstream, listener)

    good.tell("run")
    before_cpu, began = proxy.cpu(), time.monotonic()
    time.sleep(options.alone)
    alone_share = (proxy.cpu() - before_cpu) / (time.monotonic() - began)
    good.tell("stop")
    alone = good.hear(30)

    result = {"abuse": name, "title": abuse.title, "engine": proxy.engine, "alone": alone}
    descriptors, memory, tcp = proxy.descriptors(), proxy.memory(), tcp_memory()
    proxy.forget_peak()
    peaks = Peaks(proxy)
    good.tell("run")
    before_cpu, began = proxy.cpu(), time.monotonic()
    abusers = [begin(*work) for work in abuse.work(proxy.port)]
    said = listen(abusers, peaks, options)
    took = time.monotonic() - began
    share = (proxy.cpu() - before_cpu) / took
    good.tell("stop")
    amid = good.hear(60)

    # They have left; what they held has to be given back soon.
    until = time.monotonic() + LINGER + 3
    while proxy.descriptors() > descriptors and time.monotonic() < until:
        time.sleep(0.05)
    after = proxy.descriptors()
    time.sleep(0.5)
    before_cpu, began = proxy.cpu(), time.monotonic()
    time.sleep(IDLE)
    idle_share = (proxy.cpu() - before_cpu) / (time.monotonic() - began)
    peak, left = proxy.memory("VmHWM"), proxy.memory()
    account = probe_account(proxy.port)
    upstream.tell("end")
    counts = upstream.hear(30)
    good.end()
    special.end()
    time.sleep(0.3)
    code = proxy.stop()
    lines = proxy.lines()
    summary = lines[-1] if lines and lines[-1]["event"] == "summary" else {}

    outcomes = Counter()
    for one in said:
        outcomes.update(one["outcomes"])
    return result | {
        "amid": amid, "took_s": round(took, 1),
        "memory": {
            "before": memory, "peak": peak, "after": left, "bound": memory + abuse.bound + SLACK,
        },
        "descriptors": {"before": descriptors, "peak": peaks.descriptors, "after": after},
        "cpu": {
            "alone": round(alone_share, 4), "amid": round(share, 4), "after": round(idle_share, 4),
        },
        "tcp_memory": {"before": tcp, "peak": peaks.tcp},
        "outcomes": dict(outcomes), "wants": sorted(abuse.wants), "count": abuse.count,
        "note": abuse.notes(said, counts), "upstream": counts, "told": abuse.told,
        "own_faults": abuse.faults(said, counts), "account": account,
        "stalls_ms": [line["held_ms"] for line in lines if line["event"] == "stall"],
        "exit_code": code, "summary": summary,
    }


def listen(abusers, peaks, options):
    """What the abusers say in the end; meanwhile the proxy is looked at."""
    said, until = [], time.monotonic() + options.patience
    for abuser in abusers:
        while not abuser.pipe.poll(0.1):
            peaks.look()
            if time.monotonic() > until:
                raise Ended(f"the abusers did not come to their end in {options.patience:g} s")
        said.append(abuser.hear(1))
    peaks.look()
    return said


def probe_account(port):
    """Whether a newcomer whose head comes in two pieces is served: a proxy that counts bytes as held that are gone refuses it."""
    try:
        with socket.create_connection((HOST, port), 5) as client:
            client.sendall(CLOSING[:10])
            time.sleep(0.1)
            client.sendall(CLOSING[10:])
            got = b""
            while data := client.recv(65536):
                got += data
            return answer_of(got) or "closed"
    except OSError as error:
        return error.strerror or str(error)


# -- what came of it ---------------------------------------------------------------------------------


def faults(result):
    """What must not be."""
    found = list(result["own_faults"])
    for when in ("alone", "amid"):
        for error, count in result[when]["errors"].items():
            found.append(f"the good client, {when}: {count} times: {error}")
    outcomes, count = result["outcomes"], result["count"]
    for outcome in sorted(set(outcomes) - set(result["wants"])):
        found.append(f"{outcomes[outcome]:,} abusers: {outcome} (and not {' or '.join(result['wants'])})")
    if not outcomes or count is not None and sum(outcomes.values()) != count:
        found.append(f"of {count} abusers {sum(outcomes.values())} came to their end")
    memory, descriptors = result["memory"], result["descriptors"]
    if memory["peak"] > memory["bound"]:
        found.append(f"{megabytes(memory['peak'])} MiB of memory, and {megabytes(memory['bound'])} are the bound")
    if descriptors["after"] > descriptors["before"]:
        found.append(f"{descriptors['before']} descriptors before, and {descriptors['after']} after they had left")
    if result["cpu"]["after"] > IDLE_SHARE:
        found.append(f"not idle when everything was over: {result['cpu']['after']:.1%} of a core")
    if result["account"] != "200":
        found.append(f"a newcomer, when everything was over, whose head came in two pieces: {result['account']}")
    summary = result["summary"]
    if result["exit_code"] or not summary:
        found.append(f"the proxy ended with {result['exit_code']}" + ("" if summary else " and without a summary"))
    elif summary["open"] or summary["undelivered"]:
        found.append(f"at the end {summary['open']} connections open, {summary['undelivered']} events not told")
    by_phase = summary.get("by_phase", {})
    for phase in ("idle", "waiting", "sending", "tunnel"):
        told, want = sum(by_phase.get(phase, {}).values()), result["told"].get(phase, 0)
        if summary and told != want:
            found.append(f"{told} told as interrupted while {phase}, and {want} were")
    return found


def megabytes(size):
    return f"{size / MIB:.1f}"


def milliseconds(alone, amid, field):
    return f"{alone[field]:.2f} → {amid[field]:.2f}"


def row(result):
    alone, amid = result["alone"], result["amid"]
    memory, descriptors, cpu = result["memory"], result["descriptors"], result["cpu"]
    answered = ", ".join(f"{count:,}× {outcome}" for outcome, count in sorted(result["outcomes"].items()))
    for phase, causes in sorted(result["summary"].get("by_phase", {}).items()):
        answered += f"; told: {sum(causes.values()):,} interrupted while {phase}"
    if result["note"]:
        answered += f"; {result['note']}"
    errors = sum(alone["errors"].values()) + sum(amid["errors"].values())
    cells = [
        result["title"], f"{result['took_s']:.1f}", answered,
        f"{alone['requests']:,} + {amid['requests']:,}", str(errors),
        *(milliseconds(alone, amid, field) for field in ("p50_ms", "p99_ms", "max_ms")),
        " / ".join(megabytes(memory[when]) for when in ("before", "peak", "bound")),
        " / ".join(f"{descriptors[when]:,}" for when in ("before", "peak", "after")),
        " / ".join(f"{cpu[when]:.1%}" for when in ("alone", "amid", "after")),
        megabytes(result["tcp_memory"]["peak"]),
    ]
    return "| " + " | ".join(cells) + " |"


def table(results):
    columns = [
        "abuse", "s", "how it went", "good: requests, alone + amid", "errors", "p50, ms", "p99, ms",
        "max, ms", "memory, MiB: before / peak / bound", "descriptors: before / peak / after",
        "CPU of a core: alone / amid / over", "TCP's memory, peak, MiB",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|---|--:|---|" + "--:|" * (len(columns) - 3)]
    return "\n".join(lines + [row(result) for result in results])


# -- the command line --------------------------------------------------------------------------------


def names(text):
    chosen = text.split(",")
    for name in chosen:
        if name not in ABUSES:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(ABUSES)}")
    return chosen


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--only", type=names, default=list(ABUSES), metavar="NAMES", help=",".join(ABUSES))
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, for shorter")
    parser.add_argument("--connects", type=int, default=50_000, help="connections of the churn (50000)")
    parser.add_argument("--seconds", type=float, help="how long an abuse goes on that has no end (10; 3)")
    parser.add_argument("--alone", type=float, help="how long the good client is alone (5; 2)")
    parser.add_argument("--rate", type=float, default=200, help="its requests per second (200)")
    parser.add_argument("--client-core", type=int, default=cores[0], metavar="N", help="everybody but the proxy")
    parser.add_argument("--proxy-core", type=int, default=cores[-1], metavar="N")
    parser.add_argument("--deadpeer", default=str(TARGET / "release" / "deadpeer"), metavar="PATH")
    parser.add_argument(
        "--deadpeer-options", type=shlex.split, default=[], metavar="TEXT", help="more options for its proxy"
    )
    parser.add_argument("--patience", type=float, default=3600, help="seconds for an abuse to come to its end (3600)")
    parser.add_argument("--json", metavar="FILE", help="all that was measured")
    parser.add_argument("--check", action="store_true", help="fail at a fault of the proxy; latencies are not judged")
    options = parser.parse_args()
    options.seconds = options.seconds or (3 if options.quick else 10)
    options.alone = options.alone or (2 if options.quick else 5)
    return options


def main():
    options = arguments()
    # Ended from outside, we still end whom we began.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {options.client_core})
    results, found = [], []
    began = time.monotonic()
    for name in options.only:
        say(f"{name} ...")
        try:
            result = measure(name, options)
        except Missing as why:
            sys.exit(f"error: {why}")
        except (Ended, OSError) as why:
            found.append(f"{name}: not measured to its end: {why}")
            say(found[-1])
            continue
        result["faults"] = faults(result)
        results.append(result)
        found += [f"{name}: {fault}" for fault in result["faults"]]
        for fault in result["faults"]:
            say(f"  {fault}")

    print(table(results))
    engines = ", ".join(sorted({result["engine"] for result in results})) or "nothing"
    print(f"\nOne thread, {engines}. Latencies of {options.rate:g} requests/s, alone → amid the abuse, from the")
    print("instant at which each was due. The bound is what was there before, what the abuse may cost, and")
    print(f"{SLACK // MIB} MiB. Took {time.monotonic() - began:.0f} s.")
    for result in results:
        if result["stalls_ms"]:
            held = ", ".join(map(str, result["stalls_ms"]))
            print(f"\n{result['abuse']}: the proxy's loop was held up for {held} ms, says it.")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"quick": options.quick, "rate": options.rate, "results": results, "faults": found}, file, indent=1)
            file.write("\n")
    if options.check:
        for fault in found:
            print(f"check failed: {fault}", file=sys.stderr)
        if found:
            sys.exit(1)
        print("\ncheck passed: the good client had no error, memory stayed in its bounds, all descriptors came")
        print("back, and every abuser met the end that it should")


if __name__ == "__main__":
    main()
