"""Two network namespaces of our own, joined by one cable that can be cut without a word."""

import ctypes
import os
import shutil
import socket
import subprocess
import threading

from serving import Missing

OURS, THEIRS = "10.231.0.1", "10.231.0.2"
CLONE_NEWNET = 0x40000000


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


class Network:
    def __init__(self):
        if os.geteuid() != 0:
            raise Missing("silent loss needs network namespaces: run as root")
        for program, package in (("ip", "iproute2"), ("nft", "nftables")):
            if not shutil.which(program):
                raise Missing(f"no {program}: install {package}")
        self.ours, self.theirs = (f"leaving-{side}-{os.getpid()}" for side in ("ours", "theirs"))
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.end()
            raise Missing(f"no network namespaces here: {error.stderr.decode().strip()}") from None

    def _make(self):
        run("ip", "netns", "add", self.ours)
        run("ip", "netns", "add", self.theirs)
        ends = ["add", "cable", "type", "veth", "peer", "cable", "netns", self.theirs]
        run("ip", "-n", self.ours, "link", *ends)
        for namespace, address in ((self.ours, OURS), (self.theirs, THEIRS)):
            run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", namespace, "link", "set", "cable", "up")
            run("ip", "-n", namespace, "link", "set", "lo", "up")

    @property
    def within(self):
        """What to put before a command for it to run on our side."""
        return ["ip", "netns", "exec", self.ours]

    def connect(self, address):
        """A client's connection from their side."""
        made = []

        def connect():
            # A thread of its own goes over there, and its end is the way back.
            with open(f"/run/netns/{self.theirs}") as there:
                if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET):
                    made.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                made.append(socket.create_connection(address, 5))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def cut(self):
        """From here on, nothing comes from their side and nothing reaches it."""
        rules = "table inet silence {"
        for hook in ("input", "output"):
            rules += f" chain {hook} {{ type filter hook {hook} priority 0; policy drop; }};"
        run("ip", "netns", "exec", self.theirs, "nft", rules + " }")

    def mend(self):
        run("ip", "netns", "exec", self.theirs, "nft", "delete table inet silence")

    def end(self):
        for namespace in (self.ours, self.theirs):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
