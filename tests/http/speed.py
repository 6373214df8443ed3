#!/usr/bin/env python3
"""What a proxied request costs: deadpeer's proxy beside HAProxy and nginx.

    apt-get install -y --no-install-recommends haproxy nginx-light libnginx-mod-stream wrk
    cargo build --release && cargo build --release --example bare_relay
    python3 tests/http/speed.py            # about ten minutes, a Markdown table on stdout
    python3 tests/http/speed.py --quick    # about one and a half, for a look
    python3 tests/http/speed.py --calls    # half a minute: system calls of a request

wrk asks, one nginx worker answers with a file of 1 KiB, and each front in turn stands between
them, alone on its cores. Fronts alternate within a round, and each round begins with another one,
so that a machine that slows down slows all of them. All is on 127.0.0.1, with no logs.

The main figure is requests per CPU second of the front, not requests per second: on a small
machine it is the client and the upstream that are full first, and then requests per second tell
of them. How busy the front was stands beside it; at less than all of its cores' time a front
finds less to do at each waking, and its figure is one of that load, not of its limit.

The bare relay (servers/relay.rs) is the floor: one epoll, one recv and one send for each message,
and nothing parsed.
"""

import argparse
import contextlib
import ctypes
import json
import os
import platform
import random
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BODY = 1024
HOST = "127.0.0.1"
FRONTS = [
    "direct", "bare-relay", "deadpeer-http", "deadpeer-tcp", "haproxy-http", "haproxy-tcp", "nginx-http",
    "nginx-stream",
]
HAPROXY = ("haproxy-http", "haproxy-tcp")
# The proxy of another build, given by --before.
BEFORE = ("before-http", "before-tcp")
# The front of HAProxy's that does the same work.
SAME_MODE = {
    "deadpeer-http": "haproxy-http", "nginx-http": "haproxy-http",
    "deadpeer-tcp": "haproxy-tcp", "nginx-stream": "haproxy-tcp",
}
REQUEST = b"GET /file HTTP/1.1\r\nHost: speed\r\n\r\n"
TICK = os.sysconf("SC_CLK_TCK")

# Kernel caches that a build or a look at files fills, and the sockets of connections that are no
# more: what they hold is not the idle connections'.
FOREIGN_CACHES = (
    "ext4", "jbd2", "xfs", "btrfs", "buffer_head", "radix_tree", "xa_node", "inode_cache",
    "proc_inode", "shmem_inode", "fuse", "ovl", "overlay", "squashfs", "erofs", "virtiofs",
    "vm_area", "vma_lock", "anon_vma", "mm_struct", "task_struct", "maple_node", "pid", "cred",
    "sighand", "signal", "files_cache", "fs_struct", "kernfs", "tw_sock", "bio", "blk", "request_q",
    "folio", "page", "pmd", "pgd", "pte", "taskstats", "uid_cache",
)

UPSTREAM_CONF = """
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections {slots}; }}
http {{
    {temporary}
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    # One write for head and body, and the file kept open: the cheaper the upstream, the more of
    # its core is left to the client, and the fuller the front.
    sendfile off;
    open_file_cache max=16 inactive=1h;
    server {{
        listen {host}:{port} backlog=4096;
        root {folder}/root;
    }}
}}
"""

NGINX_HTTP_CONF = """
{user}
daemon off;
worker_processes {threads};
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections {slots}; }}
http {{
    {temporary}
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    upstream behind {{
        server {host}:{upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}
    server {{
        listen {host}:{port} backlog=4096;
        location / {{
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

NGINX_STREAM_CONF = """
{user}
{module}
daemon off;
worker_processes {threads};
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections {slots}; }}
stream {{
    access_log off;
    server {{
        listen {host}:{port} backlog=4096;
        proxy_pass {host}:{upstream};
        proxy_timeout 1h;
    }}
}}
"""

HAPROXY_CONF = """
global
    nbthread {threads}
    maxconn {slots}
defaults
    mode {mode}
    option abortonclose
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
frontend front
    bind {host}:{port} backlog 4096
    default_backend behind
backend behind
    server upstream {host}:{upstream}
"""

# wrk prints for eyes; this prints the same for us. It defines no request(), so that no Lua runs
# while wrk measures.
WRK_SCRIPT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'JSON {"requests":%d,"us":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,' ..
    '"p50":%d,"p90":%d,"p99":%d,"max":%d}\\n',
    summary.requests, summary.duration, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
"""


class Missing(Exception):
    """A front that cannot be had here, and why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# What /proc tells.


def tree(root):
    """The process and all below it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(pids):
    """CPU time of the processes, user and system, to the nanosecond.

    The process clock of another process (clock_getcpuclockid(3)) counts every thread of it, the
    kernel's io_uring workers and those that have ended included; /proc/PID/stat counts ticks.
    """
    total = 0.0
    for pid in pids:
        try:
            total += time.clock_gettime((~pid << 3) | 2)
        except OSError:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def system_share(pids):
    """User and system ticks of the processes."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICK, system / TICK


def core_times():
    """Busy and stolen seconds of each core so far."""
    times = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy = user + nice + system + irq + softirq
            times[int(name[3:])] = (busy / TICK, steal / TICK)
    return times


def pss_bytes(pids):
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def slab_bytes():
    """Bytes in use by cache, of the caches that connections use; None where it is not shown."""
    try:
        lines = Path("/proc/slabinfo").read_text().splitlines()[2:]
    except OSError:
        return None
    caches = {}
    for line in lines:
        name, active, _all, size = line.split()[:4]
        if not name.startswith(FOREIGN_CACHES):
            caches[name] = int(active) * int(size)
    return caches


def connections_to(port):
    """Established connections on this machine whose peer is this port."""
    wanted = f":{port:04X}"
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        count += fields[2].endswith(wanted) and fields[3] == "01"
    return count


# Processes.


def settled(cores, nice):
    """What a child does before it becomes another program."""
    libc = ctypes.CDLL(None)

    def prepare():
        # PR_SET_PDEATHSIG: should this script be killed outright, its children go too.
        libc.prctl(1, signal.SIGKILL)
        os.sched_setaffinity(0, cores)
        if nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            # Where the kernel shares its time among sessions first, nice alone is of no use
            # against another session's work.
            with contextlib.suppress(OSError):
                os.setsid()
                Path("/proc/self/autogroup").write_text(str(nice))

    return prepare


class Process:
    def __init__(self, command, cores, nice, log):
        self.log = log
        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=settled(cores, nice))

    def pids(self):
        return tree(self.child.pid)

    def last_words(self):
        lines = Path(self.log).read_text(errors="replace").strip().splitlines()
        # HAProxy's first words are of its version.
        lines.sort(key=lambda line: line.startswith("[NOTICE]"))
        return lines[0].strip() if lines else "no word"

    def check(self):
        if self.child.poll() is not None:
            raise Missing(f"it ended with {self.child.returncode}: {self.last_words()}")

    def stop(self):
        pids = self.pids()
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            say(f"{self.child.args[0]} did not end in 10 s and is killed")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.child.wait()


def free_port():
    """A port below those that the kernel gives to clients, which would take it in between."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(min(10240, low - 1000), low)
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    sys.exit("no free port")


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise Missing(f"{name} is not installed")
    return found


def first_line(command):
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def stream_module(nginx):
    """The line that loads nginx's stream module, empty where it is built in."""
    built = subprocess.run([nginx, "-V"], capture_output=True, text=True).stderr.split()
    if "--with-stream" in built:
        return ""
    for word in built:
        if word.startswith("--modules-path="):
            path = Path(word.partition("=")[2]) / "ngx_stream_module.so"
            if path.exists():
                return f"load_module {path};"
    raise Missing("nginx has no stream module (libnginx-mod-stream)")


def get(port, timeout=5.0):
    """One request; whether the whole file came."""
    with socket.create_connection((HOST, port), timeout) as client:
        client.settimeout(timeout)
        client.sendall(REQUEST)
        return read_answer(client)


def read_answer(client):
    got = b""
    while True:
        head, gap, body = got.partition(b"\r\n\r\n")
        if gap and len(body) >= BODY:
            return head.startswith(b"HTTP/1.1 200")
        more = client.recv(65536)
        if not more:
            return False
        got += more


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = Path(folder)
        self.files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.slots = 2 * max(options.idle, *options.connections) + 1024
        self.skipped = {}
        self.runs = []
        self.serial = 0
        self.patience = options.patience
        self.wrk = program("wrk")
        self.script = self.folder / "done.lua"
        self.script.write_text(WRK_SCRIPT)
        root = self.folder / "root"
        root.mkdir()
        (root / "file").write_bytes(b"x" * BODY)
        self.upstream_port = free_port()
        self.upstream = self.start_nginx(
            UPSTREAM_CONF, self.upstream_port, options.upstream_cores, "upstream")
        self.await_port(self.upstream, self.upstream_port)

    # Starting fronts.

    def new_folder(self, name):
        self.serial += 1
        folder = self.folder / f"{self.serial}-{name}"
        folder.mkdir()
        return folder

    def start_nginx(self, template, port, cores, name):
        nginx = program("nginx")
        folder = self.new_folder(name)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        conf = folder / "nginx.conf"
        conf.write_text(template.format(
            # As root nginx's workers would become another user, which may not read our folder.
            user="user root;" if os.geteuid() == 0 else "",
            module=stream_module(nginx) if "{module}" in template else "",
            temporary=" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
            threads=self.options.threads, files=self.files, slots=self.slots,
            folder=folder, host=HOST, port=port, upstream=getattr(self, "upstream_port", 0)))
        if name == "upstream":
            (folder / "root").symlink_to(self.folder / "root")
        return Process([nginx, "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(conf)],
                       cores, self.options.nice, folder / "log")

    def start_haproxy(self, mode, port):
        folder = self.new_folder("haproxy")
        conf = folder / "haproxy.cfg"
        conf.write_text(HAPROXY_CONF.format(
            threads=self.options.threads, slots=self.slots // 2, mode=mode, host=HOST, port=port,
            upstream=self.upstream_port))
        return Process([program("haproxy"), "-db", "-f", str(conf)], self.options.front_cores,
                       self.options.nice, folder / "log")

    def start_relay(self, port):
        if not Path(self.options.relay).exists():
            raise Missing(f"{self.options.relay} is not built")
        log = self.new_folder("relay") / "log"
        return Process([self.options.relay, str(port), str(self.upstream_port)],
                       self.options.front_cores, self.options.nice, log)

    def start_deadpeer(self, mode, program):
        if not Path(program).exists():
            raise Missing(f"{program} is not built")
        folder = self.new_folder("deadpeer")
        events = folder / "events"
        process = Process(
            [program, "proxy", "--listen", f"{HOST}:0", "--drain", "0s", "--upstream",
             f"{HOST}:{self.upstream_port}", "--threads", str(self.options.threads), "--mode", mode,
             "--events", str(events), *self.options.deadpeer_options],
            self.options.front_cores, self.options.nice, folder / "log")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and process.child.poll() is None:
            if events.exists():
                line, end, _ = events.read_text().partition("\n")
                if end:
                    first = json.loads(line)
                    return process, int(first["address"].rpartition(":")[2])
            time.sleep(0.01)
        process.stop()
        raise Missing(f"deadpeer proxy did not listen: {process.last_words()}")

    @staticmethod
    def await_port(process, port):
        deadline = time.monotonic() + 5
        while process.child.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if get(port):
                    return
            time.sleep(0.02)
        process.stop()
        raise Missing(f"{process.child.args[0]} does not answer: {process.last_words()}")

    @contextlib.contextmanager
    def front(self, name):
        """A fresh front that has answered once: its process (None for direct) and port."""
        process, port = None, free_port()
        if name == "direct":
            yield None, self.upstream_port
            return
        make, _, mode = name.partition("-")
        if make in ("deadpeer", "before"):
            process, port = self.start_deadpeer(mode, getattr(self.options, make))
        elif make == "bare":
            process = self.start_relay(port)
        elif make == "haproxy":
            process = self.start_haproxy(mode, port)
        elif name == "nginx-http":
            process = self.start_nginx(NGINX_HTTP_CONF, port, self.options.front_cores, name)
        else:
            process = self.start_nginx(NGINX_STREAM_CONF, port, self.options.front_cores, name)
        try:
            self.await_port(process, port)
            yield process, port
        finally:
            process.stop()

    def choose(self, names):
        """The fronts that can be had here."""
        for name in names:
            try:
                with self.front(name):
                    pass
            except Missing as reason:
                self.skipped[name] = str(reason)
                say(f"skipped {name}: {reason}")
        return [name for name in names if name not in self.skipped]

    # Measuring.

    def ask(self, port, connections, seconds, close=False):
        """One run of wrk: its counts, and the CPU seconds it took itself."""
        threads = min(len(self.options.client_cores), connections)
        command = [self.wrk, f"-t{threads}", f"-c{connections}", f"-d{seconds}s",
                   "--timeout", "10s", "-s", str(self.script)]
        if close:
            command += ["-H", "Connection: close"]

        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command + [f"http://{HOST}:{port}/file"], capture_output=True,
                              text=True,
                              preexec_fn=settled(self.options.client_cores, self.options.nice))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        for line in done.stdout.splitlines():
            if line.startswith("JSON "):
                counts = json.loads(line[5:])
                counts["client_cpu"] = (after.ru_utime + after.ru_stime - before.ru_utime
                                        - before.ru_stime)
                return counts
        sys.exit(f"wrk failed: {(done.stderr or done.stdout).strip()}")

    def calm(self):
        """Waits until nothing else works on this machine, while there is patience left."""
        while self.patience > 0:
            before = core_times()
            time.sleep(0.25)
            after = core_times()
            if sum(after[core][0] - before[core][0] for core in before) < 0.05:
                return
            self.patience -= 0.25

    def load(self, kind, name, turn, connections):
        """The first run that nothing else disturbed, or the least disturbed of a few."""
        tries = []
        while len(tries) < 3:
            self.calm()
            tries.append(self.load_once(kind, name, turn, connections))
            if tries[-1]["others"] < 0.1 or self.patience <= 0:
                break
            self.patience -= self.options.seconds
        run = min(tries, key=lambda run: run["others"])
        run["tries"] = len(tries)
        self.runs.append(run)
        return run

    def load_once(self, kind, name, turn, connections):
        """Requests under load, and what they cost whom."""
        close = kind == "churn"
        with self.front(name) as (process, port):
            self.ask(port, connections, 1, close)  # fills pools, and the upstream's connections
            if process:
                process.check()
            front = process.pids() if process else []
            upstream = self.upstream.pids()
            began = time.monotonic()
            cores, cpu, own = core_times(), cpu_seconds(front), time.process_time()
            split, behind = system_share(front), cpu_seconds(upstream)
            counts = self.ask(port, connections, self.options.seconds, close)
            if process:
                process.check()
            cpu = cpu_seconds(front) - cpu
            behind = cpu_seconds(upstream) - behind
            split = [after - before for after, before in zip(system_share(front), split)]
            cores_after = core_times()
            own = time.process_time() - own
            wall = time.monotonic() - began
        busy = {core: cores_after[core][0] - cores[core][0] for core in cores}
        others = sum(busy.values()) - cpu - behind - counts["client_cpu"] - own
        stolen = sum(cores_after[core][1] - cores[core][1] for core in cores)
        run = {
            "kind": kind, "front": name, "round": turn, "connections": connections, "wall_s": wall,
            "rps": counts["requests"] / (counts["us"] / 1e6), "wrk": counts,
            "errors": sum(counts[key] for key in ("connect", "read", "write", "status", "timeout")),
            "upstream_cpu_s": behind, "client_cpu_s": counts["client_cpu"],
            "core_busy_s": busy, "machine_busy": sum(busy.values()) / wall, "stolen_s": stolen,
            # Of one core, by any process; a busy kernel's own threads are in it as well.
            "others": max(others, 0.0) / wall,
        }
        if process:
            run |= {
                "front_cpu_s": cpu, "front_user_s": split[0], "front_system_s": split[1],
                "front_busy": cpu / wall / len(self.options.front_cores),
                "per_cpu_s": counts["requests"] / cpu,
            }
        return run

    def calls(self, name, connections):
        """System calls of a request on connections that are already there, by name."""
        counts = self.new_folder("strace") / "counts"
        with self.front(name) as (process, port):
            if not process:
                raise Missing("there is no front to trace")
            clients = [socket.create_connection((HOST, port), 10) for _ in range(connections)]
            rounds = 1 + 10_000 // connections
            ask_together(clients, 2)
            pids = [word for pid in process.pids() for word in ("-p", str(pid))]
            tracer = Process([program("strace"), "-f", "-c", "-o", str(counts), *pids],
                             self.options.client_cores, self.options.nice, f"{counts}.log")
            time.sleep(0.5)
            ask_together(clients, rounds)
            tracer.child.send_signal(signal.SIGINT)
            tracer.child.wait()
            for client in clients:
                client.close()
        asked = rounds * connections
        calls = {}
        for line in counts.read_text().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                calls[fields[-1]] = int(fields[3]) / asked
        run = {"kind": "calls", "front": name, "round": 0, "connections": connections,
               "requests": asked, "calls": calls}
        self.runs.append(run)
        return run

    def idle(self, name, turn):
        """What an idle connection holds: the front's memory, and the kernel's."""
        count = self.options.idle
        clients = []
        # Reset, not closed, in the end: no TIME_WAIT is left to the next one's measurement.
        reset = (1).to_bytes(4, sys.byteorder) + bytes(4)
        with self.front(name) as (process, port):
            front = process.pids() if process else []
            time.sleep(0.5)
            pss, slabs = pss_bytes(front), slab_bytes()
            answered = 0
            try:
                while len(clients) < count:
                    batch = [socket.create_connection((HOST, port), 10)
                             for _ in range(min(100, count - len(clients)))]
                    clients += batch
                    for client in batch:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                        client.sendall(REQUEST)
                    answered += sum(read_answer(client) for client in batch)
                time.sleep(1.5)
                pss_full, slabs_full = pss_bytes(front), slab_bytes()
                held = connections_to(self.upstream_port)
                lost = sum(not still_open(client) for client in clients)
            finally:
                for client in clients:
                    client.close()
        run = {
            "kind": "idle", "front": name, "round": turn, "connections": count,
            "answered": answered, "lost": lost, "upstream_connections": held,
            "pss_empty": pss, "pss_full": pss_full,
        }
        if process:
            run["bytes"] = (pss_full - pss) / count
        if slabs is not None and slabs_full is not None:
            growth = {cache: slabs_full[cache] - slabs.get(cache, 0) for cache in slabs_full}
            run["kernel_bytes"] = sum(growth.values()) / count
            run["kernel_caches"] = {cache: grown / count for cache, grown in growth.items()
                                    if abs(grown) >= 16 * count}
        self.runs.append(run)
        return run


def ask_together(clients, rounds):
    """Each client asks at the same time, and again when all have their answers."""
    for _ in range(rounds):
        for client in clients:
            client.sendall(REQUEST)
        if not all([read_answer(client) for client in clients]):
            raise OSError("a wrong answer")


def still_open(client):
    try:
        client.setblocking(False)
        return len(client.recv(1, socket.MSG_PEEK)) > 0
    except BlockingIOError:
        return True
    except OSError:
        return False


# Telling.


def spread(values, form):
    low, middle, high = min(values), statistics.median(values), max(values)
    return " | ".join(form(value) for value in (low, middle, high))


def whole(value):
    return f"{value:,.0f}"


def table(title, heads, rows, out):
    print(f"\n### {title}\n", file=out)
    print("| " + " | ".join(heads) + " |", file=out)
    print("|---" + "|---:" * (len(heads) - 1) + "|", file=out)
    for row in rows:
        print("| " + " | ".join(row) + " |", file=out)


def ratios(values, name, best):
    """Against the better of HAProxy's modes, the one that does the same, and the bare relay.

    Values are by front and round. A ratio is taken within a round, as the machine itself may be
    faster in one than in another; told is the median of the rounds, and from where to where.
    """
    rivals = [values[rival] for rival in HAPROXY if rival in values]
    twin = [values[SAME_MODE[name]]] if SAME_MODE.get(name) in values else []
    floor = [values["bare-relay"]] if "bare-relay" in values else []

    def over(rivals):
        if not rivals or name not in values:
            return "-"
        found = []
        for turn, mine in values[name].items():
            theirs = best(rival[turn] for rival in rivals)
            if theirs > 0:
                found.append(mine / theirs)
        if not found:
            return "-"
        text = f"{statistics.median(found):.2f}"
        return text if len(found) == 1 else f"{text} ({min(found):.2f}-{max(found):.2f})"

    return [over(rivals), over(twin), over(floor)]


NOTES = """
Ratios are taken within each round, and the median told; for requests more is better, for latency
and memory less. CPU seconds are
user and system time of all the front's processes and kernel threads of theirs, opening and closing
the connections included. A front that is less than 90% busy was not at its limit. "Others" is what
else ran on this machine, in cores; a run with more than 0.1 of it is tried again, twice at most
and while patience lasts.
Latency is wrk's, whose clients wait for their answers: not an open load, and it corrects long
answers for the requests they held up. Direct, client and upstream share cores; with a front each
request also wakes another core twice, and that is in what is added.
Memory is Pss of the front's processes now less what they had before the first connection, so what a
front sets aside at its start is in "front empty" alone. Kernel memory is what the slabs of the
whole machine grew by, both ends of each connection and the upstream's included, pages outside of
slabs not.
Each idle connection has asked once, 100 of them at a time: a front that shares upstream connections
holds that many, the others one for each client."""


RATIOS = ["x better HAProxy", "x HAProxy, same mode", "x bare relay"]


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def select(bench, kind, name, connections):
    return [run for run in bench.runs
            if (run["kind"], run["front"], run["connections"]) == (kind, name, connections)]


def report(bench, header, names, out):
    print("## A front's cost, beside HAProxy and nginx\n", file=out)
    for key, value in header.items():
        print(f"- {key}: {value}", file=out)
    for name, reason in bench.skipped.items():
        print(f"- skipped {name}: {reason}", file=out)

    if bench.options.calls:
        return report_calls(bench, names, out)
    report_load(bench, names, out)
    if not bench.options.only_load:
        report_latency(bench, names, out)
        report_memory(bench, names, out)
    print(NOTES, file=out)


def report_load(bench, names, out):
    loads = [("load", count, f"{count:,} keep-alive connections") for count in
             bench.options.connections]
    if bench.options.churn:
        loads.append(("churn", 50, "50 clients, a connection for each request"))
    for kind, connections, title in loads:
        found = {name: select(bench, kind, name, connections) for name in names}
        values = {name: {run["round"]: run["per_cpu_s"] for run in runs}
                  for name, runs in found.items() if name != "direct"}
        rows = []
        for name, runs in found.items():
            tail = [spread([run["rps"] for run in runs], whole)]
            own = ["-"] * 3
            busy = "-"
            if name != "direct":
                own = [spread([run["per_cpu_s"] for run in runs], whole)]
                busy = f"{100 * median(runs, 'front_busy'):.0f}%"
            rows.append([name, *own, *ratios(values, name, max), *tail, busy,
                         f"{median(runs, 'machine_busy'):.2f}",
                         f"{max(run['others'] for run in runs):.2f}",
                         str(sum(run["errors"] for run in runs))])
        table(f"Requests per CPU second of the front, {title}",
              ["front", "min", "median", "max", *RATIOS, "requests/s min", "median", "max",
               "front busy", "cores busy", "others at most", "errors"], rows, out)
        rows = []
        for key in ("p50", "p99"):
            waits = {name: {run["round"]: run["wrk"][key] for run in runs}
                     for name, runs in found.items()}
            rows += [[f"{key}, {name}", spread(waits[name].values(), whole),
                      ratios(waits, name, min)[-1]] for name in names]
        table(f"Latency in us under this load, {title}",
              ["front", "min", "median", "max", "x bare relay"], rows, out)


def report_calls(bench, names, out):
    rows = []
    for connections in bench.options.connections:
        for name in names:
            run, = select(bench, "calls", name, connections)
            each = ", ".join(f"{call} {count:.2f}" for call, count in run["calls"].items()
                             if count >= 0.005)
            rows.append([name, str(connections), f"{sum(run['calls'].values()):.2f}", each])
    table("System calls of a request", ["front", "connections", "in all", "each"], rows, out)


def report_latency(bench, names, out):
    # Added latency is taken within the round: both of its ends saw the same machine.
    added = {}
    few = bench.options.few
    direct = {run["round"]: run for run in select(bench, "latency", "direct", few)}
    rows = []
    for name in names:
        runs = select(bench, "latency", name, few)
        cells = []
        for key in ("p50", "p99"):
            cells.append(spread([run["wrk"][key] for run in runs], whole))
            if name == "direct" or not direct:
                cells.append("-")
                continue
            more = {run["round"]: run["wrk"][key] - direct[run["round"]]["wrk"][key]
                    for run in runs}
            if key == "p50":
                added[name] = more
            cells.append(whole(statistics.median(more.values())))
        rows.append([name, *cells, whole(median(runs, "rps")),
                     f"{max(run['others'] for run in runs):.2f}"])
    for row in rows:
        row[-2:-2] = ratios(added, row[0], min)
    table(f"Latency in us, {few} connections, each asking as soon as it was answered",
          ["front", "p50 min", "median", "max", "p50 added", "p99 min", "median", "max",
           "p99 added", *(f"p50 added {head}" for head in RATIOS), "requests/s",
           "others at most"], rows, out)


def report_memory(bench, names, out):
    rows = []
    idle = bench.options.idle
    found = {name: select(bench, "idle", name, idle) for name in names}
    values = {name: {run["round"]: run["bytes"] for run in runs}
              for name, runs in found.items() if name != "direct"}
    bare = {run["round"]: run.get("kernel_bytes") for run in found.get("direct", [])}
    for name, runs in found.items():
        kernel = [run["kernel_bytes"] for run in runs if "kernel_bytes" in run]
        more = [run["kernel_bytes"] - bare[run["round"]] for run in runs
                if "kernel_bytes" in run and bare.get(run["round"]) is not None]
        rows.append([
            name,
            "- | - | -" if name == "direct" else spread([run["bytes"] for run in runs], whole),
            *ratios(values, name, min),
            whole(statistics.median(kernel)) if kernel else "-",
            whole(statistics.median(more)) if more and name != "direct" else "-",
            whole(median(runs, "upstream_connections")),
            "-" if name == "direct" else whole(median(runs, "pss_empty") / 1024),
            str(sum(run["lost"] + run["connections"] - run["answered"] for run in runs)),
        ])
    table(f"Memory in bytes for each of {idle:,} idle connections",
          ["front", "min", "median", "max", *RATIOS, "kernel, whole machine",
           "kernel, over direct", "upstream connections", "front empty, KiB", "lost"], rows, out)



def cores(text):
    chosen = {int(core) for core in text.split(",")}
    if not chosen <= os.sched_getaffinity(0):
        raise argparse.ArgumentTypeError(f"this machine lends {sorted(os.sched_getaffinity(0))}")
    return chosen


def numbers(text):
    return [int(number) for number in text.split(",")]


def parse():
    last = str(max(os.sched_getaffinity(0)))
    first = str(min(os.sched_getaffinity(0)))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deadpeer", default="target/release/deadpeer", metavar="PATH")
    parser.add_argument("--deadpeer-options", type=shlex.split, default=[], metavar="TEXT",
                        help="more options for its proxy")
    parser.add_argument("--before", metavar="PATH",
                        help="another deadpeer; its fronts are before-http and before-tcp")
    parser.add_argument("--relay", default="target/release/examples/bare_relay", metavar="PATH")
    parser.add_argument("--fronts", default=",".join(FRONTS), help="which, with commas")
    parser.add_argument("--only-load", action="store_true", help="neither latency nor memory")
    parser.add_argument("--calls", action="store_true", help="only system calls, by strace")
    parser.add_argument("--connections", type=numbers, default=[50, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each run of wrk")
    parser.add_argument("--few", type=int, default=2, help="connections when latency is taken")
    parser.add_argument("--idle", type=int, default=5000, help="connections when memory is taken")
    parser.add_argument("--churn", action="store_true", help="also a connection for each request")
    parser.add_argument("--front-cores", type=cores, default=last)
    parser.add_argument("--client-cores", type=cores, default=first)
    parser.add_argument("--upstream-cores", type=cores, default=first)
    parser.add_argument("--threads", type=int, help="of each front; default: one a core of its own")
    parser.add_argument("--patience", type=float, default=60, metavar="SECONDS",
                        help="in all, to wait for others to be quiet and to try again after them")
    parser.add_argument("--nice", type=int, default=0, metavar="N",
                        help="of fronts, client and upstream; below 0 where others do not stop")
    parser.add_argument("--json", metavar="FILE", help="all that was measured")
    parser.add_argument("--quick", action="store_true",
                        help="one round of 2 s, 50 connections, 500 idle")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.connections, options.idle = 1, 2, [50], 500
    if options.calls:
        options.rounds = 1
    options.threads = options.threads or len(options.front_cores)
    options.fronts = options.fronts.split(",")
    for name in options.fronts:
        if name not in FRONTS and not (options.before and name in BEFORE):
            parser.error(f"no front is called {name}; there are {', '.join(FRONTS)}")
    return options


def raise_files(options):
    """Room for descriptors, two a connection in a front; fewer idle ones where there is none."""
    # HAProxy does not start without room for twice its maxconn, and some more for itself.
    wanted = 2 * max(options.idle, *options.connections) + 2048
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((max(wanted, soft), max(wanted, hard)), (hard, hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            break
    room = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 2048) // 2
    if room < options.idle:
        say(f"room for {room} idle connections only")
        options.idle = max(room, 1)


def describe(options):
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break

    def listed(chosen):
        return ",".join(map(str, sorted(chosen)))

    def version(name, flag):
        try:
            return first_line([program(name), flag])
        except Missing as reason:
            return str(reason)

    deadpeer = "not built"
    if Path(options.deadpeer).exists():
        deadpeer = first_line([options.deadpeer, "--version"])
    return {
        "kernel": f"{platform.release()}, {platform.machine()}",
        "cores": f"{os.cpu_count()} of {model}; front on {listed(options.front_cores)} with "
                 f"{options.threads} thread(s), wrk on {listed(options.client_cores)}, upstream on "
                 f"{listed(options.upstream_cores)}",
        "versions": "; ".join([
            deadpeer, version("haproxy", "-v").partition(" - ")[0], version("nginx", "-v"),
            version("wrk", "-v").partition(" Copyright")[0]]),
        "measured": f"{options.rounds} round(s) of {options.seconds} s after 1 s of warming up, a "
                    f"fresh front for each, nice {options.nice}, load average "
                    f"{os.getloadavg()[0]:.2f} before",
    }


def measure(bench, names):
    options = bench.options
    steps = [("load", count) for count in options.connections]
    if options.calls:
        steps = [("calls", count) for count in options.connections]
    elif not options.only_load:
        steps += [("latency", options.few), ("idle", options.idle)]
    if options.churn:
        steps.append(("churn", 50))
    for turn in range(options.rounds):
        shift = turn % max(len(names), 1)
        for kind, count in steps:
            say(f"round {turn + 1} of {options.rounds}: {kind}, {count} connections")
            for name in names[shift:] + names[:shift]:
                try:
                    if kind == "idle":
                        run = bench.idle(name, turn)
                    elif kind == "calls":
                        run = bench.calls(name, count)
                    else:
                        run = bench.load(kind, name, turn, count)
                except (Missing, OSError) as reason:
                    # The others are still worth their table; half a front's figures are not.
                    bench.skipped[name] = f"broke under {kind}, {count} connections: {reason}"
                    say(f"  {name:14} {bench.skipped[name]}")
                    bench.runs = [run for run in bench.runs if run["front"] != name]
                    names.remove(name)
                    continue
                if kind == "idle":
                    say(f"  {name:14} {run.get('bytes', 0):10,.0f} bytes")
                elif kind == "calls":
                    say(f"  {name:14} {sum(run['calls'].values()):10,.2f} system calls")
                else:
                    say(f"  {name:14} {run['rps']:10,.0f} requests/s "
                        f"{run.get('per_cpu_s', 0):10,.0f} a CPU second "
                        f"{100 * run.get('front_busy', 0):4.0f}% busy, others {run['others']:.2f}")


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_files(options)
    # This script waits beside the client, not on the front's cores.
    os.sched_setaffinity(0, options.client_cores)
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        try:
            bench = Bench(options, folder)
        except Missing as reason:
            sys.exit(f"{reason}; wrk and nginx, the upstream, are needed in any case")
        try:
            names = bench.choose(options.fronts)
            if not names:
                sys.exit("no front is left to measure")
            header = describe(options)
            measure(bench, names)
        finally:
            bench.upstream.stop()
        report(bench, header, names, sys.stdout)
        if options.json:
            Path(options.json).write_text(json.dumps(
                {"header": header, "skipped": bench.skipped, "runs": bench.runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
