"""A plan as a page for people: the verdict first, a bar for each device, settings to paste, and why."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from rackllama.planning.choose import Considered
from rackllama.planning.engine_settings import ENVIRONMENT_NAMES, command_line
from rackllama.planning.plan import MIB, DevicePlan, Plan
from rackllama.planning.speed import ACCEPTABLE_TOK_S, COMFORTABLE_TOK_S
from rackllama.planning.words import amount, duration

NARROWEST, WIDEST = 80, 120
# What a bar is made of: name, character, the same for terminals without Unicode, and style.
KINDS = (
    ("weights", "█", "#", "blue"),
    ("KV cache", "▓", "k", "cyan"),
    ("compute", "▒", "c", "magenta"),
    ("left alone", "░", "-", "bright_black"),
    ("free", "·", ".", "bright_black"),
)
OVERFLOW = "!"
NARROWEST_BAR = 12
GIB_FROM_MIB = 10 * 1024  # smaller memories are told in MiB
MOST_ROWS = 16
LEAST_SHOWN = 0.25  # of a character
TITLES = ("weights", "KV", "compute", "reserve", "free", "of", "layers")


def show(shown: RenderableType, stream: TextIO, environment: Mapping[str, str]) -> None:
    """Print to that stream: with colours on a terminal only, and never with NO_COLOR.

    What is no terminal is as wide as COLUMNS says, and no narrower than 80.
    """
    is_plain = not stream.isatty() or bool(environment.get("NO_COLOR"))
    told = environment.get("COLUMNS", "")
    width = None if stream.isatty() else max(NARROWEST, int(told) if told.isdecimal() else 0)
    console = Console(
        file=stream, width=width, color_system=None if is_plain else "auto", highlight=False, markup=False, emoji=False
    )
    with console.capture() as captured:
        console.print(shown)
    # A table fills its last column with blanks.
    text = "\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")) + "\n"
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))


def page(plan: Plan, *, is_explained: bool = False) -> RenderableType:
    """The whole page."""
    parts: list[RenderableType] = [verdict(plan), *_subject(plan), "", Memory(plan), ""]
    if plan.fits:
        parts += [*_settings(plan), ""]
    parts += _facts(plan)
    if is_explained:
        parts += ["", _heading("How it was reckoned"), *map(Paragraph, plan.explanation)]
    return Group(*parts)


def choice(
    model: str, plan: Plan | None, considered: Sequence[Considered], *, is_explained: bool = False
) -> RenderableType:
    """The page for what was chosen, if anything was, and what else was considered."""
    first: RenderableType = Text(
        f"Nothing fits: no instance type of the catalogue does for {printable(model)}.", "bold red"
    )
    return Group(page(plan, is_explained=is_explained) if plan else first, "", _considered(considered))


def verdict(plan: Plan) -> Text:
    """One line: whether it fits, and by how much."""
    about = " (approximate: see the doubts below)" if plan.is_approximate else ""
    what = printable(f"{plan.model} on {plan.hardware}")
    if plan.fits:
        text = Text("Fits", "bold green")
        spare = _spare(plan)
        left = f", {amount(spare[1] * MIB)} to spare on {spare[0]}" if spare else ""
        return text.append(f": {what}{left}{about}", "not bold default")
    text = Text("Does not fit", "bold red")
    return text.append(f": {what}, {amount(_missing(plan) * MIB)} have no room{about}", "not bold default")


def printable(text: str) -> str:
    """The text without what a terminal would obey: names come from whoever published the model."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


class Memory:
    """A row with a bar for each device, as wide as there is room for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table and its legend."""
        devices = (*self.plan.devices, self.plan.host)
        in_gib = max(device.total_mib or 0 for device in devices) >= GIB_FROM_MIB
        rows = [(label, device, _amounts(device, in_gib=in_gib)) for label, device in _rows(self.plan)]
        head = ("in GiB" if in_gib else "in MiB", None, TITLES)
        others = [
            max(map(len, column))
            for column in zip(*((label, *cells) for label, _, cells in (head, *rows)), strict=True)
        ]
        room = min(options.max_width, WIDEST) - sum(others) - len(others)
        look = Look(max(NARROWEST_BAR, room), options.ascii_only)
        table = Table.grid(padding=(0, 1))
        for column in range(len(others) + 1):
            table.add_column(justify="left" if column <= 1 else "right", no_wrap=True)
        table.add_row(Text(head[0], "dim"), "", *(Text(title, "dim") for title in TITLES))
        for label, device, cells in rows:
            is_short = (device.free_mib or 0) < 0
            styles = ["bold red" if is_short and title == "free" else "" for title in TITLES]
            table.add_row(label, bar(device, look), *map(Text, cells, styles))
        yield table
        yield legend(ascii_only=look.ascii_only)
        of_cuda = max((device.cuda_only_mib for device in self.plan.devices), default=0)
        if of_cuda:
            note = (
                f"compute: up to {amount(of_cuda * MIB)} of it on one GPU are copies that only CUDA makes, by "
                "llama.cpp's source and not measured here"
            )
            yield Paragraph(note, style="dim")


@dataclass(frozen=True)
class Look:
    """How wide a bar is, and of which characters."""

    width: int
    ascii_only: bool = False


def bar(device: DevicePlan, look: Look) -> Text:
    """What a device holds, as parts of a line; what has no room there is told by exclamation marks.

    Empty where nobody told how much memory there is.
    """
    if device.total_mib is None:
        return Text("")
    taken = (device.weights_mib, device.kv_mib, device.compute_mib, device.reserved_mib)
    whole = max(device.total_mib, sum(taken))
    cells = shares((*taken, whole - sum(taken)), look.width)
    text = Text()
    for count, (_, character, plain, style) in zip(cells, KINDS, strict=True):
        text.append((plain if look.ascii_only else character) * count, style)
    room = look.width * device.total_mib // whole
    return text if room == look.width else Text.assemble(text[:room], (OVERFLOW * (look.width - room), "bold red"))


def shares(amounts: Sequence[int], cells: int) -> list[int]:
    """So many cells shared out by amounts: one already for a quarter of one, for which the largest pays."""
    whole = sum(amounts)
    exact = [cells * amount / whole for amount in amounts]
    counts = [max(1, round(part)) if part >= LEAST_SHOWN else 0 for part in exact]
    counts[counts.index(max(counts))] += cells - sum(counts)
    return counts


def legend(*, ascii_only: bool) -> Text:
    """What the parts of a bar mean."""
    text = Text()
    for name, character, plain, style in KINDS:
        text.append(plain if ascii_only else character, style).append(f" {name}   ", "dim")
    return text.append(OVERFLOW, "bold red").append(" no room", "dim")


def _subject(plan: Plan) -> Iterator[RenderableType]:
    serving = plan.serving
    each = serving.context // serving.parallel
    slots = f"{serving.parallel} slots with a context of {each} each" if serving.parallel > 1 else f"context {each}"
    most = f" (room for {plan.max_context})" if plan.max_context > each else ""
    kinds = "/".join(dict.fromkeys((serving.key_type, serving.value_type)))
    attention = "with" if serving.flash_attention else "without"
    yield Paragraph(f"{plan.architecture}, {plan.way.value}", style="dim")
    yield Paragraph(f"{slots}{most}, KV cache {kinds}, {attention} flash attention", style="dim")


def _spare(plan: Plan) -> tuple[str, int] | None:
    """The fullest device that has layers, and the MiB that are free there."""
    gpus = [(f"GPU {number}", device.free_mib) for number, device in enumerate(plan.devices) if device.layers]
    found = [(name, free) for name, free in gpus or [("the host", plan.host.free_mib)] if free is not None]
    if len(plan.devices) == 1 and gpus and found:
        return "the GPU", found[0][1]
    return min(found, key=lambda one: one[1], default=None)


def _missing(plan: Plan) -> int:
    return sum(max(0, -(device.free_mib or 0)) for device in (*plan.devices, plan.host))


def _rows(plan: Plan) -> Iterator[tuple[str, DevicePlan]]:
    """Each device with its label; of very many, those that are alike and side by side as one."""
    is_mixed = len({device.name for device in plan.devices}) > 1
    runs = groupby(enumerate(plan.devices), lambda one: one if len(plan.devices) <= MOST_ROWS else one[1])
    for _, run in runs:
        (first, device), *others = run
        numbers = f"{first}-{others[-1][0]}" if others else f"{first}"
        yield f"GPU {numbers} {device.name}" if is_mixed else f"GPU {numbers}", device
    yield "host", plan.host


def _amounts(device: DevicePlan, *, in_gib: bool) -> tuple[str, ...]:
    """What a row tells under TITLES."""
    sizes = (device.weights_mib, device.kv_mib, device.compute_mib, device.reserved_mib)
    told = (*sizes, device.free_mib, device.total_mib)
    return (*("?" if mib is None else f"{mib / 1024:.1f}" if in_gib else str(mib) for mib in told), str(device.layers))


def _settings(plan: Plan) -> Iterator[RenderableType]:
    told = plan.settings["llama_cpp"]
    beside = {name: value for name, value in told["environment"].items() if name not in ENVIRONMENT_NAMES.values()}
    words = [f"{name}={value}" for name, value in beside.items()]
    yield _heading("llama.cpp")
    yield Command([*words, "llama-server", "--model MODEL.gguf", *_pairs(command_line(told["options"]))])
    yield ""
    yield _heading("Ollama", "in the Modelfile")
    for name, value in plan.settings["ollama"]["parameters"].items():
        yield Text(f"PARAMETER {name} {value}")
    yield ""
    yield _heading("Ollama", "in the server's environment, for all its models")
    for name, value in plan.settings["ollama"]["environment"].items():
        yield Text(f"{name}={value}")


def _pairs(arguments: Sequence[str]) -> Iterator[str]:
    """Each option with its value."""
    at = 0
    while at < len(arguments):
        has_value = at + 1 < len(arguments) and not arguments[at + 1].startswith("--")
        yield shlex.join(arguments[at : at + 1 + has_value])
        at += 1 + has_value


class Paragraph:
    """Text that is wrapped at words, to the right of its title where it has one."""

    def __init__(self, text: str, title: str = "", margin: int = 0, style: str = "") -> None:
        self.text, self.title, self.margin, self.style = printable(text), title, margin, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield its lines."""
        indent = " " * (len(self.text) - len(self.text.lstrip()))
        width = min(options.max_width, WIDEST) - self.margin
        lines = wrap(self.text.strip(), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        for number, line in enumerate(lines):
            title = "" if number else self.title
            yield Text.assemble((title.ljust(self.margin), "bold"), (line, self.style), no_wrap=True)


class Command:
    """A command line that can be pasted, its lines ended with backslashes where it has several."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield its lines."""
        lines = [""]
        for word in self.words:
            if lines[-1] and len(lines[-1]) + len(word) + 3 > min(options.max_width, WIDEST):
                lines.append("   ")
            lines[-1] += f" {word}" if lines[-1] else word
        for line in lines[:-1]:
            yield Text(f"{line} \\", no_wrap=True, overflow="ignore")
        yield Text(lines[-1], no_wrap=True, overflow="ignore")


def _facts(plan: Plan) -> Iterator[RenderableType]:
    told = [(title, lines) for title, lines in _told(plan) if lines]
    margin = max(len(title) for title, _ in told) + 2
    for title, lines in told:
        for number, line in enumerate(lines):
            yield Paragraph(line, "" if number else title, margin)


def _told(plan: Plan) -> Iterator[tuple[str, Sequence[str]]]:
    yield "Speed", tuple(_speed(plan))
    yield "Landing", (_landing(plan),)
    if plan.cost_per_hour is not None:
        yield "Cost", (f"${plan.cost_per_hour:,.2f} an hour",)
    if plan.swap_mib:
        yield "Swap", (f"{amount(plan.swap_mib * MIB)} would hold what the host's memory has no room for, very slowly",)
    yield "Why", plan.reasons
    yield "To make it fit", plan.remedies
    yield "Doubts", plan.doubts


def _speed(plan: Plan) -> Iterator[str]:
    rate = plan.decode_tok_s
    if rate is None:
        yield "not known" if plan.fits else "none, as it does not fit"
    else:
        yield f"{rate.low:.3g} to {rate.high:.3g} tokens a second, likely {rate.mid:.3g}: {plan.rating}"
    thresholds = {"acceptable": ACCEPTABLE_TOK_S, "comfortable": COMFORTABLE_TOK_S}
    if plan.users:
        served = [f"{users} at {thresholds[kind]:g} tok/s each" for kind, users in plan.users.items()]
        yield f"users at once: {', '.join(served)}"
    if plan.load_seconds is not None:
        yield f"loads in {duration(plan.load_seconds)}"


def _landing(plan: Plan) -> str:
    landing = plan.landing
    time = "how long hangs on --network and --disk-write"
    if landing.seconds is not None:
        time = f"in {duration(landing.seconds)}"
    disk = f"{landing.peak_disk_bytes / 1e9:.1f} GB of disk at the peak"
    return f"{landing.bytes / 1e9:.1f} GB ({amount(landing.bytes)}), {disk}; {time}"


def _considered(considered: Sequence[Considered]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(*(Text(title, "dim") for title in ("instance", "$/h", "tok/s", "why not")))
    for one in considered:
        rate = one.plan and one.plan.decode_tok_s
        table.add_row(
            Text(one.hardware.name, "" if one.refusal else "bold green"),
            "?" if one.cost_per_hour is None else f"{one.cost_per_hour:.2f}",
            f"{rate.mid:.3g}" if rate else "",
            one.refusal or Text("chosen", "bold green"),
        )
    return Group(_heading("Considered", "the cheapest first"), table)


def _heading(title: str, note: str = "") -> Text:
    return Text(title, "bold").append(f", {note}" if note else "", "not bold dim")
