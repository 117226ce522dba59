"""Amounts as people read them."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def amount(size: float) -> str:
    """Bytes with a unit that leaves at most four digits before the point: `376.7 GiB`."""
    for unit in _UNITS[:-1]:
        if size < 1024:  # noqa: PLR2004 - what a unit is made of
            return f"{size:.0f} {unit}" if unit in _UNITS[:2] else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """Seconds as `45 s`, `12 min` or `3 h 20 min`."""
    if seconds < 90:  # noqa: PLR2004 - longer ones are told in minutes
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004
