"""Amounts as people give them on a command line."""

import re
from argparse import ArgumentTypeError

AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?:(?P<unit>[KMGT])(?P<binary>i)?)?B?", re.IGNORECASE | re.ASCII)
EXPONENTS = {"K": 1, "M": 2, "G": 3, "T": 4}


def byte_count(text: str) -> int:
    """Bytes: K, M, G and T are powers of 1000, Ki, Mi, Gi and Ti of 1024; a B may follow."""
    found = AMOUNT.fullmatch(text.strip())
    if not found:
        raise ArgumentTypeError(f"{text!r} is no amount of bytes: write 500000, 200M, 20G or 20GiB")
    base = 1024 if found["binary"] else 1000
    return int(float(found["number"]) * base ** EXPONENTS.get((found["unit"] or "").upper(), 0))


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not re.fullmatch(r"[0-9]{1,6}", text) or not int(text):
        raise ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)
