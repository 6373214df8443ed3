"""WebSockets through deadpeer's proxy, with Python's `websockets` on both sides.

The proxy follows the Upgrade and relays what comes behind it: messages up to 1 MiB in both directions at
once, pings from either side, and an orderly close, none of which is an interruption. A client that is
killed (SIGKILL) is told of once, in the phase `tunnel`, and its server notices. Prints a table in Markdown.

    websocket.py
    websocket.py --check       the gate's: fails at anything else
"""

import argparse
import asyncio
import os
import random
import shlex
import signal
import sys
import time
from collections import defaultdict

sys.dont_write_bytecode = True  # nothing beside the sources

from fronts import Deadpeer
from serving import TARGET, Missing, venv_python

try:
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed
except ImportError:
    if sys.executable == venv_python():
        sys.exit("no websockets: pip install websockets")
    os.execv(venv_python(), [venv_python(), *sys.argv])

# Around the bounds of the three encodings of a length (RFC 6455, section 5.2), and much.
SIZES = [0, 1, 125, 126, 65_535, 65_536, 1 << 20]
CLIENTS = 10
SECONDS = 20  # far beyond what any of it takes
OPTIONS = {"max_size": 2 << 20, "ping_interval": None}  # pings are ours


class Server:
    """Gives back what it gets, pings clients that ask for it, and remembers how each connection ended."""

    def __init__(self):
        self.closed = defaultdict(asyncio.Queue)  # by the path that was asked for
        self.begun = asyncio.Queue()

    async def talk(self, socket):
        try:
            async for message in socket:
                if message == "ping me":
                    await (await socket.ping())
                    message = "you are there"
                if message == "I stay":
                    self.begun.put_nowait(socket)
                await socket.send(message)
        except ConnectionClosed:
            pass
        await socket.wait_closed()
        self.closed[socket.request.path].put_nowait((socket.close_code, time.monotonic()))

    async def __aenter__(self):
        self.serving = await serve(self.talk, "127.0.0.1", 0, **OPTIONS)
        self.port = self.serving.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.serving.close()
        await self.serving.wait_closed()


def messages(dice):
    """One of each size and type, in any order; the texts have characters of up to four bytes."""
    alphabet = "aé€😀"
    found = [dice.randbytes(size) for size in SIZES]
    for size in SIZES:
        text = "".join(dice.choices(alphabet, k=size // 2)).encode()[:size]
        text = text.decode(errors="ignore")
        found.append(text + "a" * (size - len(text.encode())))
    dice.shuffle(found)
    return found


async def echo(url, seed, compression):
    """Sends everything at once while it reads what comes back."""
    sent = messages(random.Random(seed))
    async with connect(url, proxy=None, compression=compression, **OPTIONS) as socket:

        async def send():
            for message in sent:
                await socket.send(message)

        sending = asyncio.create_task(send())
        for number, message in enumerate(sent):
            if await socket.recv() != message:
                raise ValueError(f"message {number} of {len(message)} came back as another")
        await sending
    return len(sent)


async def ping(url):
    """A ping from either side."""
    async with connect(url, proxy=None, **OPTIONS) as socket:
        began = time.monotonic()
        await (await socket.ping(b"are you there"))
        took = (time.monotonic() - began) * 1000
        await socket.send("ping me")
        if await socket.recv() != "you are there":
            raise ValueError("the server's ping was not answered")
    return took


async def close(url, server, code):
    """An orderly end, with a code and a reason that both sides know."""
    path = f"/closes-{code}"
    socket = await connect(url + path, proxy=None, **OPTIONS)
    await socket.send("well")
    await socket.recv()
    await socket.close(code, "done")
    seen = (await server.closed[path].get())[0]
    if (socket.close_code, seen) != (code, code):
        raise ValueError(f"closed with {code}, and the sides saw {socket.close_code} and {seen}")
    return seen


async def kill(url, server, front):
    """A process that talks and is killed; the milliseconds until its server knew."""
    child = await asyncio.create_subprocess_exec(sys.executable, __file__, "--stay", f"{url}/stays")
    await server.begun.get()
    left = time.monotonic()
    child.kill()
    await child.wait()
    code, noticed = await server.closed["/stays"].get()
    if code != 1006:
        raise ValueError(f"the server saw {code}")
    wait, interrupted = front.reporter.wait, lambda line: line["event"] == "interrupted"
    told = await asyncio.to_thread(wait, interrupted, SECONDS)
    if told is None or told["phase"] != "tunnel":
        raise ValueError(f"what was told is {told}")
    return (noticed - left) * 1000


async def stay(url):
    """What the process does that is killed."""
    async with connect(url, proxy=None, **OPTIONS) as socket:
        await socket.send("I stay")
        async for _ in socket:
            pass


async def talk(options):
    """All of it, behind one proxy; the rows of the table, and what was wrong."""
    rows, faults, opened = [], [], 0

    async def row(what, count, work, write):
        nonlocal opened
        opened += count
        try:
            rows.append((what, write(await asyncio.wait_for(work, SECONDS))))
        except Exception as why:  # whatever it is, it is the result
            rows.append((what, "wrong"))
            faults.append(f"{what}: {type(why).__name__}: {why}")

    async with Server() as server:
        front = Deadpeer(server, options)
        url = f"ws://127.0.0.1:{front.address[1]}"
        try:
            for compression in (None, "deflate"):
                what = f"{CLIENTS} clients at once, texts and bytes up to 1 MiB, {compression or 'plain'}"
                work = asyncio.gather(*(echo(url, seed, compression) for seed in range(CLIENTS)))
                await row(what, CLIENTS, work, lambda counts: f"{sum(counts)} came back unchanged")
            await row("a ping from either side", 1, ping(url), "answered, in {:.1f} ms".format)
            for code in (1000, 4321):
                work = close(url, server, code)
                await row(f"closed in order with {code}", 1, work, "both sides saw {}".format)
            await row("killed", 1, kill(url, server, front), "the server knew after {:.0f} ms".format)
            if front.fell():
                faults.append(front.fell())
        finally:
            await asyncio.to_thread(front.end)
    told = await asyncio.to_thread(front.reporter.wait, lambda line: line["event"] == "summary", SECONDS)
    # Each Upgrade was answered, and of all only the killed one left in the middle.
    wanted = {"opened": opened, "completed": opened, "interrupted": 1, "upstream_failed": 0}
    wanted |= {"not_followed": 0, "undelivered": 0}
    came = {name: (told or {}).get(name) for name in wanted}
    if came != wanted:
        faults.append(f"{came} instead of {wanted}")
    return rows, faults


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deadpeer", default=str(TARGET / "release" / "deadpeer"), metavar="PATH")
    parser.add_argument("--deadpeer-options", type=shlex.split, default=[], metavar="TEXT")
    parser.add_argument("--check", action="store_true", help="fail if anything was wrong")
    parser.add_argument("--stay", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stay:
        return asyncio.run(stay(options.stay))
    options.address, options.within, options.silent = "127.0.0.1", [], False
    # Ended from outside, we still end whom we began.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        rows, faults = asyncio.run(talk(options))
    except Missing as why:
        sys.exit(str(why))
    print("| | |\n|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    for fault in faults:
        print(f"check failed: {fault}", file=sys.stderr)
    if options.check:
        if faults:
            sys.exit(1)
        print("\ncheck passed: all came through, and only the killed client was told of, in its tunnel")


if __name__ == "__main__":
    main()
