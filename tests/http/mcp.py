#!/usr/bin/env python3
"""Whether a tool of an MCP server is cancelled when its client is killed: the server and the client are those of the
`mcp` package, the server on uvicorn, with and without deadpeer's proxy between them. A call that is left alone must
come to its end.

    python3 tests/http/mcp.py [--deadpeer target/release/deadpeer] [--check]
"""

import argparse
import json
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # nothing beside the sources

from serving import Reporter, end, has_module, venv_python

SERVER = """
import asyncio, json, socket, time, uvicorn
from mcp.server import MCPServer

server = MCPServer("thinker", log_level="ERROR")

def report(event, **more):
    print(json.dumps({"event": event, "at": time.monotonic(), **more}), flush=True)

@server.tool()
async def think(seconds: float) -> str:
    report("began")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        report("cancelled")
        raise
    report("finished")
    return "thought"

app = server.streamable_http_app()
listener = socket.create_server(("127.0.0.1", 0))
report("listening", port=listener.getsockname()[1])
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
"""

CLIENT = """
import asyncio, sys
from mcp.client import Client

async def main():
    async with Client(sys.argv[1]) as client:
        print((await client.call_tool("think", {"seconds": float(sys.argv[2])})).content[0].text)

asyncio.run(main())
"""


def call(port, seconds):
    command = [venv_python(), "-c", CLIENT, f"http://127.0.0.1:{port}/mcp", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def times(server, port):
    """Milliseconds from the kill of a client to the cancellation of its tool; and whether a patient client is served."""
    patient = call(port, 1.0)
    served = patient.communicate(timeout=60)[0].strip() == "thought"
    before = len(server.lines)
    client = call(port, 30.0)
    after = lambda event: lambda line: line["event"] == event and line in server.lines[before:]
    if server.wait(after("began"), 60) is None:
        sys.exit("the tool was not called")
    time.sleep(0.3)
    left = time.monotonic()
    client.send_signal(signal.SIGKILL)
    client.wait()
    cancelled = server.wait(after("cancelled"), 20)
    return served, cancelled and (cancelled["at"] - left) * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--deadpeer", default="target/release/deadpeer", metavar="PATH")
    parser.add_argument("--check", action="store_true", help="fail if a tool works on, or a patient client is cut")
    options = parser.parse_args()
    if not has_module("mcp"):
        sys.exit("no mcp: pip install mcp")
    server = Reporter([venv_python(), "-c", SERVER])
    port = server.listening("the MCP server")["port"]
    command = [options.deadpeer, "proxy", "--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{port}"]
    front = Reporter([*command, "--events", "-"])
    ports = {"direct": port, "deadpeer": int(front.listening("deadpeer")["address"].rsplit(":", 1)[1])}
    wrong = []
    print("| | a patient client | from the kill to the cancellation, ms |")
    print("|---|---|---:|")
    for name, port in ports.items():
        served, late = times(server, port)
        print(f"| {name} | {'served' if served else 'cut'} | {'never' if late is None else format(late, '.1f')} |")
        if not served or late is None:
            wrong.append(name)
    front.wait(lambda line: line["event"] == "interrupted", 10)  # it may be told after the server has noticed
    told = [line for line in front.lines if line["event"] == "interrupted"]
    end(front.process)
    server.end()
    if options.check and (wrong or len(told) != 1):
        sys.exit(f"check failed: {', '.join(wrong) or 'events'}: {told}")


if __name__ == "__main__":
    main()
