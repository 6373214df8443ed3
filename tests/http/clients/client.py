"""Two requests of one of Python's clients, one after the other: prints what each came to.

    client.py http.client|requests|httpx|aiohttp URL
"""

import asyncio
import json
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit


def twice(ask):
    came = []
    for _ in range(2):
        try:
            came.append(ask())
        except Exception as error:  # whatever it is, it is the answer
            came.append(f"{type(error).__name__}: {error}")
    return came


def by_http_client(url):
    connection = HTTPConnection(urlsplit(url).netloc, timeout=5)

    def ask():
        connection.request("GET", "/")
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


CLIENTS = {
    "http.client": by_http_client,
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
}

print(json.dumps(CLIENTS[sys.argv[1]](sys.argv[2])))
