"""Two requests of one of Python's clients, one after the other: prints what each came to.

    client.py http.client|requests|httpx|aiohttp URL
    client.py http.client URL FILE                    they post the file
    client.py half-close URL [FILE [expect]]          a socket for each, that says no more after its request
"""

import asyncio
import json
import socket
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

sys.dont_write_bytecode = True  # nothing beside the sources
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from responses import Reader, read_head, read_response


def twice(ask):
    came = []
    for _ in range(2):
        try:
            came.append(ask())
        except Exception as error:  # whatever it is, it is the answer
            came.append(f"{type(error).__name__}: {error}")
    return came


def target(url):
    _, _, path, query, _ = urlsplit(url)
    return f"{path}?{query}" if query else path


def body():
    return Path(sys.argv[3]).read_bytes() if len(sys.argv) > 3 else None


def by_http_client(url):
    connection = HTTPConnection(urlsplit(url).netloc, timeout=5)

    def ask():
        data = body()
        connection.request("GET" if data is None else "POST", target(url), data)
        response = connection.getresponse()
        return f"{response.status} {response.read().decode()}"

    return twice(ask)


def by_requests(url):
    import requests

    session = requests.Session()

    def ask():
        response = session.get(url, timeout=5)
        return f"{response.status_code} {response.text}"

    return twice(ask)


def by_httpx(url):
    import httpx

    client = httpx.Client(timeout=5)

    def ask():
        response = client.get(url)
        return f"{response.status_code} {response.text}"

    return twice(ask)


def by_aiohttp(url):
    import aiohttp

    async def both():
        came = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
            for _ in range(2):
                try:
                    async with session.get(url) as response:
                        came.append(f"{response.status} {await response.text()}")
                except Exception as error:  # whatever it is, it is the answer
                    came.append(f"{type(error).__name__}: {error}")
        return came

    return asyncio.run(both())


def by_half_close(url):
    """Before what came stands 100 if the client was asked after its last word."""
    host, port = urlsplit(url).netloc.split(":")
    data, expects = body(), len(sys.argv) > 4
    fields = ["Host: server"]
    if data is not None:
        fields.append(f"Content-Length: {len(data)}")
    if expects:
        fields.append("Expect: 100-continue")
    method = "GET" if data is None else "POST"
    head = "\r\n".join([f"{method} {target(url)} HTTP/1.1", *fields, "", ""]).encode()

    def ask():
        with socket.create_connection((host, int(port)), 5) as client:
            client.sendall(head)
            if expects and read_head(Reader(client, 5))[0] != 100:
                raise ValueError("no 100 before the body")
            client.sendall(data or b"")
            client.shutdown(socket.SHUT_WR)
            response = read_response(client, 5)
            if response.fault:
                raise ValueError(response.fault)
            came = [*sorted(set(response.interims)), response.status, response.body.decode()]
            return " ".join(map(str, came))

    return twice(ask)


CLIENTS = {
    "half-close": by_half_close,
    "http.client": by_http_client,
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
}

print(json.dumps(CLIENTS[sys.argv[1]](sys.argv[2])))
