"""What a command prints of an operation, in the wording of the real CLI where its callers depend on it."""

import json
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .values import UNKNOWN, masked

STEPS = {  # in the order of the summary: mark, what is planned, what was done, what is being done
    "create": ("+ ", "create", "created", "creating"),
    "update": ("~ ", "update", "updated", "updating"),
    "delete": ("- ", "delete", "deleted", "deleting"),
    "replace": ("+-", "replace", "replaced", "replacing"),
}


@dataclass
class Report:
    """The lines of one operation. Diagnostics come at its end, by resource."""

    preview: bool
    diagnostics: dict[str, list[str]] = field(default_factory=dict)
    errors: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self, urn: str, step: str) -> None:
        """A step begins."""
        mark, planned, _, doing = STEPS[step]
        print(f" {mark} {_short(urn)} {planned if self.preview else doing}", flush=True)

    def diagnose(self, urn: str, severity: str, message: str) -> None:
        """Keep a message for the end."""
        with self.lock:
            self.errors += severity == "error"
            lines = message.splitlines() or [""]
            lines[0] = lines[0] if severity == "info" else f"{severity}: {lines[0]}"
            self.diagnostics.setdefault(urn, []).extend(lines)

    def end(self, counts: Counter[str], outputs: Mapping[str, Any] | None) -> None:
        """Diagnostics, outputs and counts."""
        if self.diagnostics:
            print("Diagnostics:")
        for urn, lines in self.diagnostics.items():
            print(f"  {_label(urn)}:")
            print("\n".join(f"    {line}" for line in lines) + "\n")
        if outputs:
            print("Outputs:")
            for key, value in sorted(outputs.items()):
                print(f"    {key}: {_shown(value)}")
            print()
        print("Resources:")
        for step, (mark, planned, done, _) in STEPS.items():
            if counts[step]:
                print(f"    {mark}{counts[step]} {'to ' + planned if self.preview else done}")
        changes, same = sum(counts[step] for step in STEPS), counts["same"]
        kinds = sum(bool(counts[step]) for step in STEPS)
        pieces = [f"{changes} changes"] * (kinds > 1) + [f"{same} unchanged"] * bool(same)
        print(*(["    " + ". ".join(pieces)] if pieces else []), sep="\n")
        if self.errors:
            print(f"    {self.errors} errored")
        sys.stdout.flush()


def _shown(value: Any) -> str:
    return json.dumps(masked(value)).replace(f'"{UNKNOWN}"', "[unknown]")


def _label(urn: str) -> str:
    if not urn:
        return "pulumi:pulumi:Stack"
    _, _, qualified, name = urn.split("::", 3)
    return f"{qualified.rsplit('$', 1)[-1]} ({name})"


def _short(urn: str) -> str:
    _, _, qualified, name = urn.split("::", 3)
    return f"{qualified.rsplit('$', 1)[-1]} {name}"
