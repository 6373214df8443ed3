"""What stands before the servers under test: nothing, deadpeer's proxy, or another's."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from serving import Missing, Reporter, end

HAPROXY = """\
global
    log stderr local0 emerg
defaults
    mode {mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
{options}
frontend front
    bind {address}:{port}
    default_backend back
backend back
    server only 127.0.0.1:{upstream}
"""

NGINX = """\
daemon off;
master_process off;
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
    server {{
        listen {address}:{port}{keepalive};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
        }}
    }}
}}
"""


OWN_PORTS = itertools.count(8000)


def free_port(address, within):
    """A free port: for programs that cannot choose one themselves and tell."""
    if within:
        return next(OWN_PORTS)  # a network namespace of our own: all are free
    with socket.create_server((address, 0)) as taken:
        return taken.getsockname()[1]


class Front:
    """One front before one server: `address` is whom to ask."""

    def __init__(self):
        self.events = []

    def fell(self):
        """Why it is no longer there, if so."""

    def end(self):
        pass


class NoFront(Front):
    def __init__(self, server, options):
        super().__init__()
        self.address = (options.address, server.port)


class Deadpeer(Front):
    def __init__(self, server, options):
        super().__init__()
        if not Path(options.deadpeer).exists():
            raise Missing(f"no deadpeer at {options.deadpeer}: cargo build --release, or --deadpeer PATH")
        command = [options.deadpeer, "proxy", "--listen", f"{options.address}:0", "--drain", "0s"]
        command += ["--upstream", f"127.0.0.1:{server.port}", "--events", "-"]
        if options.silent:
            command += ["--policy", "strict"]
        self.reporter = Reporter([*options.within, *command, *options.deadpeer_options], quiet=False)
        self.events = self.reporter.lines
        port = self.reporter.listening("deadpeer proxy")["address"].rpartition(":")[2]
        self.address = (options.address, int(port))

    def fell(self):
        code = self.reporter.process.poll()
        return None if code is None else f"deadpeer ended with {code} while clients were served"

    def end(self):
        self.reporter.end()


class Configured(Front):
    """A front of another make, that reads a file and cannot tell its port."""

    def __init__(self, server, options):
        super().__init__()
        name, package = self.program
        # Debian keeps them where only root looks.
        program = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
        if not program:
            raise Missing(f"no {name}: install {package}")
        self.folder = tempfile.TemporaryDirectory()
        port = free_port(options.address, options.within)
        text = self.template.format(
            folder=self.folder.name,
            address=options.address,
            port=port,
            upstream=server.port,
            **self.settings(options.silent),
        )
        file = Path(self.folder.name, "conf")
        file.write_text(text)
        arguments = [argument.format(file=file) for argument in self.arguments]
        errors = Path(self.folder.name, "stderr").open("wb")
        self.process = subprocess.Popen([*options.within, program, *arguments], stdout=errors, stderr=errors)
        self.address = (options.address, port)
        self._await(options, name)

    def _await(self, options, name):
        until = time.monotonic() + 5
        while time.monotonic() < until and self.process.poll() is None:
            try:
                options.connect(self.address).close()
                return
            except OSError:
                time.sleep(0.02)
        text = Path(self.folder.name, "stderr").read_text()
        self.end()
        raise Missing(f"{name} did not begin to listen: {text.strip()[-300:]}")

    def fell(self):
        code = self.process.poll()
        return None if code is None else f"{self.program[0]} ended with {code} while clients were served"

    def end(self):
        end(self.process)
        self.folder.cleanup()


class Haproxy(Configured):
    program = ("haproxy", "haproxy")
    template = HAPROXY
    arguments = ["-db", "-f", "{file}"]

    def settings(self, silent):
        lines = list(self.options)
        if silent:  # what deadpeer's strict policy asks of a kernel
            lines += ["option clitcpka", "clitcpka-idle 4s", "clitcpka-intvl 1s", "clitcpka-cnt 3"]
        return {"mode": self.mode, "options": "".join(f"    {line}\n" for line in lines)}


class HaproxyTcp(Haproxy):
    mode, options = "tcp", []


class HaproxyHttp(Haproxy):
    mode, options = "http", ["option abortonclose"]


class HaproxyPlain(Haproxy):
    mode, options = "http", []


class Nginx(Configured):
    program = ("nginx", "nginx-light")
    template = NGINX
    arguments = ["-c", "{file}", "-e", "stderr"]

    def settings(self, silent):
        return {"keepalive": " so_keepalive=4s:1s:3" if silent else ""}


FRONTS = {
    "none": NoFront,
    "deadpeer": Deadpeer,
    "haproxy-tcp": HaproxyTcp,
    "haproxy-http": HaproxyHttp,
    "haproxy-plain": HaproxyPlain,
    "nginx": Nginx,
}
