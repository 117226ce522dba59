"""What AWS says when it has no machine to give, read from the output of `pulumi up`: pure, one table.

The codes are those of "Error codes for the Amazon EC2 API" (docs.aws.amazon.com/AWSEC2/latest/APIReference/
errors-overview.html). They arrive in one of three ways, which are all that is read:

    creating EC2 Instance: operation error EC2: RunInstances, … api error InsufficientInstanceCapacity: We currently …
    An error occurred (InsufficientInstanceCapacity) when calling the RunInstances operation: We currently …
    waiting for EC2 Instance (i-0a1) create: … last error: Server.InsufficientInstanceCapacity: Insufficient capacity …
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_QUOTA = (
    "raise the quota: AWS console, Service Quotas, Amazon EC2, `Running On-Demand P instances` or `All P Spot Instance "
    "Requests` (G and VT for L4, L40S and A10G); it is counted in vCPUs and holds for the whole region"
)
_PATTERNS = (
    re.compile(r"api error (?P<code>\w+): (?P<said>[^\n]*)"),
    re.compile(r"An error occurred \((?P<code>\w+)\) when calling the \w+ operation[^:\n]*: (?P<said>[^\n]*)"),
    re.compile(r"last error: (?:Server|Client)\.(?P<code>\w+): (?P<said>[^\n]*)"),
)


@dataclass(frozen=True)
class Meaning:
    """What a code says in words, whether another zone may have what this one lacks, and what else helps."""

    words: str
    elsewhere: bool
    remedy: str = ""


MEANINGS = {
    "InsufficientInstanceCapacity": Meaning("AWS has no free machine of this type in this zone now", elsewhere=True),
    "InsufficientReservedInstanceCapacity": Meaning(
        "AWS has fewer Reserved Instances free in this zone than were asked for", elsewhere=True
    ),
    "UnfulfillableCapacity": Meaning("AWS has no spare spot capacity for this request in this zone", elsewhere=True),
    "SpotMaxPriceTooLow": Meaning(
        "the spot price in this zone is above the maximum that you pay",
        elsewhere=True,
        remedy="raise the maximum price",
    ),
    "Unsupported": Meaning("this type of instance is not offered in this zone", elsewhere=True),
    "ReservationCapacityExceeded": Meaning(
        "the capacity reservation or capacity block has no free instance left",
        elsewhere=False,
        remedy="end what runs in the reservation, ask for fewer hosts, or name another reservation; it is of one zone, "
        "so that no other zone can help",
    ),
    "MaxSpotInstanceCountExceeded": Meaning(
        "your account has reached its quota of spot instances", elsewhere=False, remedy=_QUOTA
    ),
    "VcpuLimitExceeded": Meaning(
        "your account's quota of vCPUs for this family of instances is too small", elsewhere=False, remedy=_QUOTA
    ),
    "InstanceLimitExceeded": Meaning("your account has reached its quota of instances", elsewhere=False, remedy=_QUOTA),
}
ELSEWHERE = (
    "try again later, buy a capacity block, take spot instead of on demand or the other way round, or choose another "
    "instance type or region (`rackllama plan MODEL` shows which fit)"
)


@dataclass(frozen=True)
class Shortage:
    """One refusal: AWS's code, and its own words."""

    code: str
    said: str

    @property
    def meaning(self) -> Meaning:
        """What it says, and what to do."""
        return MEANINGS[self.code]


def find_shortages(output: str) -> list[Shortage]:
    """The refusals for lack of capacity or quota in what `pulumi up` printed, each once, in order.

    `Unsupported` is one only where AWS's words name the zone: it is said of much that no zone supports, too.
    """
    found = [
        Shortage(match["code"], match["said"].strip())
        for line in output.splitlines()
        for pattern in _PATTERNS
        for match in pattern.finditer(line)
        if match["code"] in MEANINGS and (match["code"] != "Unsupported" or "Availability Zone" in match["said"])
    ]
    return list(dict.fromkeys(found))


def zone_order(zones: Sequence[str], zone: str | None) -> list[str]:
    """The zones in the order to try them in: the one that is set first, then those after it, then those before it."""
    if zone is None or zone not in zones:
        return list(dict.fromkeys([zone, *zones] if zone else zones))
    first = list(zones).index(zone)
    return [*zones[first:], *zones[:first]]


def words(shortages: Sequence[Shortage], zone: str) -> str:
    """What happened in a zone, in words and in AWS's own."""
    return "\n".join(
        f"{zone or 'the zone that AWS chose'}: {shortage.meaning.words}\n  AWS says: {shortage.code}: {shortage.said}"
        for shortage in shortages
    )


def remedy(shortages: Sequence[Shortage]) -> str:
    """What helps where no zone is left."""
    own = [shortage.meaning.remedy for shortage in shortages if shortage.meaning.remedy]
    return "; or ".join(dict.fromkeys([*own, *([ELSEWHERE] if any(s.meaning.elsewhere for s in shortages) else [])]))
