"""Python's `websockets` as a client: websockets_client.py URL WSS_URL CA_FILE

Says "waiting" once all is well, and ends well where the server then closes with 1001.
"""

import asyncio
import ssl
import sys

import websockets

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 300000]


async def echoes(client, payloads):
    """Sends payloads at once and asserts that they come back in order, of the same kind."""

    async def send():
        for payload in payloads:
            await client.send(payload)

    sending = asyncio.create_task(send())
    for payload in payloads:
        assert await client.recv() == payload
    await sending


async def main(url, secure, authority):
    for compression in [None, "deflate"]:
        async with websockets.connect(url, compression=compression) as client:
            names = [extension.name for extension in client.extensions]
            assert names == ([] if compression is None else ["permessage-deflate"]), names
            for size in SIZES:
                await echoes(client, [b"\x07" * size, "ä" * (size // 2)])
            await echoes(client, [f"message {number}" for number in range(1000)])

            await client.send(["in ", "three ", "pieces"])
            assert await client.recv() == "in three pieces"
            await (await client.ping("are you there?"))
            await client.close(4321, "enough")
            assert client.close_code == 4321, client.close_code

    try:
        await websockets.connect(url, origin="https://evil.example")
        raise AssertionError("a foreign page is let in")
    except websockets.InvalidStatusCode as refusal:
        assert refusal.status_code == 403, refusal

    trusted = ssl.create_default_context(cafile=authority)
    async with websockets.connect(secure, ssl=trusted) as client:
        await echoes(client, ["over TLS"])

    async with websockets.connect(url) as client:
        print("waiting", flush=True)
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1001, "going away")


asyncio.run(main(*sys.argv[1:]))
