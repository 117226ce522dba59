"""Ranges of addresses: written well, and not so wide that they are everybody."""

from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network

from rackllama.host.errors import RackllamaError

# The widest that somebody can own: 10.0.0.0/8, and a registry's part of IPv6. Two halves of the world are open as well.
NARROWEST_OPEN_V4, NARROWEST_OPEN_V6 = 7, 15


def is_open(cidr: str) -> bool:
    """Whether the range is the internet, or so much of it that it comes to the same."""
    network = ip_network(cidr, strict=False)
    return network.prefixlen <= (NARROWEST_OPEN_V4 if isinstance(network, IPv4Network) else NARROWEST_OPEN_V6)


def require_ranges(ranges: Iterable[str], what: str) -> None:
    """Raise RackllamaError unless all are IPv4 ranges, as 203.0.113.0/24: the networks made here have no IPv6."""
    for cidr in ranges:
        try:
            is_range = "/" in cidr and isinstance(ip_network(cidr), IPv4Network)
        except ValueError:
            is_range = False
        if not is_range:
            raise RackllamaError(
                f"{what} has {cidr!r}, which is no IPv4 range", "write a range as 203.0.113.0/24, one address as /32"
            )


def require_named_ranges(ranges: Iterable[str], what: str) -> None:
    """As `require_ranges`, and raise RackllamaError where one is open to the world."""
    listed = list(ranges)
    require_ranges(listed, what)
    for cidr in listed:
        if is_open(cidr):
            raise RackllamaError(
                f"{what} has {cidr}, which lets the internet in",
                "name your own range, as 203.0.113.0/24, or leave it empty: Session Manager needs no open port",
            )
