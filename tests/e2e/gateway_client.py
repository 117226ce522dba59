"""The gateway of the site as its users see it: an address, an authority to trust, and keys."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rackllama.host.gateway.keys import KEYS

from .waiting import wait_until

PROGRAM = "python3 -I /opt/rackllama/current/rackllama-host.pyz"
STAND_IN = Path(__file__).with_name("stand_in_engine.py")


@dataclass(frozen=True)
class Gateway:
    """The gateway on the one host of a site."""

    site: Any

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://{self.site.host.address}"

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client knows of it: the authority that its host shows to everybody."""
        return ssl.create_default_context(cadata=self.site.run("cat /etc/rackllama/gateway/ca.crt"))

    def client(self, key: str = "", http2: bool = False) -> httpx.Client:
        """A client with a key; to be closed."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, verify=self.trust, headers=headers, http2=http2, timeout=60)

    def create(self, user: str) -> str:
        """A new key, made on the host itself."""
        return str(self.site.run(f"{PROGRAM} key create {user}"))

    def revoke(self, name: str) -> None:
        """Revoke the keys of a user, on the host itself."""
        self.site.run(f"{PROGRAM} key revoke {name}")

    def known(self) -> list[str]:
        """The users that have keys."""
        return [line.split()[1] for line in self.site.run(f"cat {KEYS}").splitlines()]

    def workers(self) -> set[str]:
        """The processes that serve, but for the one that governs them."""
        main = self.site.run("systemctl show gateway --property MainPID --value")
        return set(self.site.run(f"pgrep --parent {main}").split())

    @contextmanager
    def stand_ins(self, **ports: int) -> Iterator[list[dict[str, str]]]:
        """Engines that only tell what reaches them, by name and port, as `gateway_engines` declares them."""
        self.site.run(f"cat > /run/stand_in_engine.py <<'END'\n{STAND_IN.read_text()}\nEND")
        for name, port in ports.items():
            self.start_stand_in(name, port)
        try:
            yield [{"name": name, "url": f"http://127.0.0.1:{port}"} for name, port in ports.items()]
        finally:
            self.site.run(f"systemctl stop {' '.join(ports)}")

    def start_stand_in(self, name: str, port: int) -> None:
        """Start one of the stand-ins, and wait until it listens."""
        self.site.run(f"systemd-run --quiet --collect --unit {name} python3 /run/stand_in_engine.py {name} {port}")
        wait_until(lambda: self.site.run(f"ss -Hltn sport = :{port}"))
