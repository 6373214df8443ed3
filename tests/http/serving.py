"""The servers under test, as processes: built or found, begun, listened to and ended."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target"
SOURCES = HERE / "servers"


class Missing(Exception):
    """This machine has not what is needed; the text tells what."""


def venv_python():
    """The Python that may have packages: the referees' own, or else the one that runs this."""
    own = TARGET / "referees" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def has_module(name):
    python = venv_python()
    if python == sys.executable:
        return importlib.util.find_spec(name) is not None
    return subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 0


def go_program(source, name):
    """Builds one Go file, if that was not done since it was written."""
    go = shutil.which("go")
    if not go:
        raise Missing("no go: install golang-go")
    program = TARGET / "http" / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"GOCACHE": str(TARGET / "http" / "go-cache"), "GO111MODULE": "off"}
        subprocess.run([go, "build", "-o", str(program), str(source)], check=True, env=environment)
    return str(program)


def go_command():
    return [go_program(SOURCES / "main.go", "go-server")]


def node_program():
    node = shutil.which("node")
    if not node:
        raise Missing("no node: install nodejs")
    return node


def node_command():
    return [node_program(), str(SOURCES / "server.mjs")]


def uvicorn_command(parser):
    for module in ("uvicorn", parser):
        if not has_module(module):
            raise Missing(f"no {module}: pip install {module}")
    return [venv_python(), str(SOURCES / "server.py")]


# What to type for each, without the address; `after` comes behind it.
SERVERS = {
    "go": (go_command, []),
    "uvicorn": (lambda: uvicorn_command("h11"), ["h11"]),
    "uvicorn-httptools": (lambda: uvicorn_command("httptools"), ["httptools"]),
    "node": (node_command, []),
    "asyncio": (lambda: [sys.executable, str(SOURCES / "asyncio_server.py")], []),
}


def end(process):
    """Ends a process of ours, and waits until it is gone."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Reporter:
    """A process that tells of itself in JSON Lines on its standard output."""

    def __init__(self, command, quiet=True):
        errors = subprocess.DEVNULL if quiet else None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        self.lines = []
        self.over = False
        self.changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            if line.startswith(b"{"):
                with self.changed:
                    self.lines.append(json.loads(line))
                    self.changed.notify_all()
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def wait(self, fits, seconds):
        """The first line that fits, waited for; None if there is none in time."""
        seen = 0
        until = time.monotonic() + seconds
        with self.changed:
            while True:
                while seen < len(self.lines):
                    if fits(self.lines[seen]):
                        return self.lines[seen]
                    seen += 1
                left = until - time.monotonic()
                if left <= 0 or self.over:
                    return None
                self.changed.wait(left)

    def listening(self, name):
        line = self.wait(lambda line: line["event"] == "listening", 20)
        if line is None:
            self.end()
            raise Missing(f"{name} did not begin to listen (exit code {self.process.poll()})")
        return line

    def end(self):
        end(self.process)


class Server(Reporter):
    """One server: its port, and what its handlers told, by the case's name."""

    def __init__(self, name, address="127.0.0.1", within=()):
        command, after = SERVERS[name]
        super().__init__([*within, *command(), address, *after])
        self.name = name
        self.port = self.listening(name)["port"]

    def told(self, case, events, seconds):
        """The moment of the first of these events of a case: (event, ns), or (None, None)."""
        line = self.wait(lambda line: line.get("id") == case and line["event"] in events, seconds)
        return (line["event"], int(line["ns"])) if line else (None, None)
