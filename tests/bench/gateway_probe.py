"""How late tokens come, on a host: `python3 gateway_probe.py URL STREAMS TOKENS INTERVAL`, with a key on stdin.

Prints JSON: the delay of each token in ms since the stand-in engine sent it, by the host's one clock, and the seconds
that all took.
"""

import http.client
import json
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

CA = "/etc/rackllama/gateway/ca.crt"


def stream(url: str, key: str, asked: dict[str, object], delays: list[float]) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, context=ssl.create_default_context(cafile=CA))
    else:
        connection = http.client.HTTPConnection(parts.netloc)
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), {"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise SystemExit(f"{url} answered {answer.status}: {answer.read().decode()}")
    while line := answer.readline():
        now = time.time()
        if line.startswith(b"data: "):
            delays.append((now - json.loads(line[6:])["sent"]) * 1000)


def main() -> None:
    url, streams, tokens, interval = sys.argv[1], *map(float, sys.argv[2:])
    key, delays = sys.stdin.readline().strip(), []
    asked = {"model": "stand-in", "stream": True, "tokens": int(tokens), "interval": interval}
    threads = [threading.Thread(target=stream, args=(url, key, asked, delays)) for _ in range(int(streams))]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"delays_ms": delays, "seconds": time.monotonic() - started}))


main()
