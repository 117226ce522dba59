"""A range server that costs as little as can be: files of one folder by sendfile, connections kept alive.

    python -m tests.bench.server FOLDER

It prints its address, and serves until its standard input ends, so that it never outlives whoever started it.
"""

import os
import re
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d+)", re.IGNORECASE)
MOST_REQUEST_BYTES = 1 << 16


def main() -> None:
    """Serve the folder that the command line names."""
    folder = Path(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    threading.Thread(target=_accept, args=(listener, folder), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket, folder: Path) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, folder), daemon=True).start()


def _serve(connection: socket.socket, folder: Path) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, suppress(ConnectionError):
        received = b""
        while data := connection.recv(MOST_REQUEST_BYTES):
            received += data
            while b"\r\n\r\n" in received:
                request, _, received = received.partition(b"\r\n\r\n")
                _answer(connection, request, folder)


def _answer(connection: socket.socket, request: bytes, folder: Path) -> None:
    path = folder / Path(os.fsdecode(request.split(b" ", 2)[1])).name
    if not path.is_file():
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        asked = RANGE.search(request)
        start, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        status = f"206 Partial Content\r\nContent-Range: bytes {start}-{end - 1}/{size}" if asked else "200 OK"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {end - start}\r\n\r\n".encode())
        while start < end:
            start += os.sendfile(connection.fileno(), file.fileno(), start, end - start)


if __name__ == "__main__":
    main()
