"""Reach what listens on a host's loopback alone, through SSH: engines have no authentication and face no network."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import paramiko

from rackllama.lab.hosts import Host, Lab, ssh_client

BUFFER_BYTES = 1 << 16


@contextmanager
def tunnel(lab: Lab, host: Host, port: int) -> Iterator[str]:
    """The address, as `http://127.0.0.1:PORT`, at which this machine reaches `port` on the host's own loopback."""
    with ssh_client(lab, host) as client, socket.create_server(("127.0.0.1", 0)) as listener:
        transport = client.get_transport()
        if transport is None:
            raise ConnectionError(f"SSH to {host.name} closed at once")
        accepting = threading.Thread(target=_accept, args=(listener, transport, port), daemon=True)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the accept, which closing alone would not
            accepting.join()


def _accept(listener: socket.socket, transport: paramiko.Transport, port: int) -> None:
    while True:
        try:
            connection, source = listener.accept()
        except OSError:
            return
        try:
            channel = transport.open_channel("direct-tcpip", ("127.0.0.1", port), source)
        except paramiko.ChannelException:  # nobody listens there now; the next connection may find somebody
            connection.close()
            continue
        threading.Thread(target=_pump, args=(connection, channel), daemon=True).start()


def _pump(connection: socket.socket, channel: paramiko.Channel) -> None:
    """Carry bytes both ways until one side closes, or goes without a word as browsers and ended SSH sessions do."""
    with suppress(OSError, EOFError), connection, channel, selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ, channel)
        selector.register(channel, selectors.EVENT_READ, connection)
        while True:
            for ready, _ in selector.select():
                data = ready.fileobj.recv(BUFFER_BYTES)  # type: ignore[union-attr] # a socket or a channel, as registered
                if not data:
                    return
                ready.data.sendall(data)
