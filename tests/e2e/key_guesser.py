"""Guesses keys of a gateway, as `python3 key_guesser.py ADDRESS SECONDS RATE`.

So many requests a second in all, each with another key, whatever comes back and when. Prints a line when it begins, and
at the end how many it sent and which statuses came, as JSON.
"""

import asyncio
import collections
import contextlib
import json
import re
import secrets
import ssl
import sys
import time

CONNECTIONS = 100
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(address: str) -> Connection:
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection(address, 443, ssl=trust)


async def guess(
    address: str, connection: Connection, seconds: float, interval: float, counts: "collections.Counter[str]"
) -> None:
    """Guess at a steady rate, on one connection after the other, as each is closed."""
    next_at, ends = time.monotonic(), time.monotonic() + seconds
    while next_at < ends:
        reader, writer = connection
        counting = asyncio.create_task(count(reader, counts))
        while next_at < ends and not counting.done():
            key = secrets.token_urlsafe(32)
            writer.write(f"GET /v1/models HTTP/1.1\r\nHost: {address}\r\nx-api-key: rl-{key}\r\n\r\n".encode())
            counts["sent"] += 1
            next_at += interval
            await asyncio.sleep(next_at - time.monotonic())
        counting.cancel()
        writer.transport.abort()
        connection = await connect(address)
    connection[1].transport.abort()


async def count(reader: asyncio.StreamReader, counts: "collections.Counter[str]") -> None:
    """Count the statuses that come, until the connection is closed."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            counts.update(status.decode() for status in re.findall(rb"HTTP/1.1 (\d+) ", data))


async def main() -> None:
    address, seconds, rate = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    counts: collections.Counter[str] = collections.Counter()
    connections = [await connect(address) for _ in range(CONNECTIONS)]
    sys.stdout.write("guessing\n")
    sys.stdout.flush()
    guesses = (guess(address, connection, seconds, CONNECTIONS / rate, counts) for connection in connections)
    await asyncio.gather(*guesses)
    sys.stdout.write(json.dumps(counts))


asyncio.run(main())
