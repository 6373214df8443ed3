"""A web server whose handler works for a minute and stops when its connection ends.

It listens on 127.0.0.1:9000. The README puts `deadpeer proxy` before it.
"""

import asyncio


async def handle(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    print("the handler works", flush=True)
    work = asyncio.create_task(asyncio.sleep(60))
    end = asyncio.create_task(reader.read(1))
    await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n")
    else:
        end.exception()
        print("the handler stops: its client has gone", flush=True)
    work.cancel()
    writer.close()


async def main():
    async with await asyncio.start_server(handle, "127.0.0.1", 9000) as server:
        await server.serve_forever()


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
