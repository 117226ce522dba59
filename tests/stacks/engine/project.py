"""A project and the configuration of one of its stacks: Pulumi.yaml and Pulumi.<stack>.yaml."""

import itertools
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .state import Cipher, CliError

TYPES = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "array": list, "object": dict}


@dataclass(frozen=True)
class Project:
    """A folder with Pulumi.yaml, whose content is `data`."""

    folder: Path
    data: dict[str, Any]

    @classmethod
    def find(cls, folder: Path) -> "Project":
        """The project of a folder or of the nearest one above."""
        for candidate in (folder, *folder.parents):
            if (path := candidate / "Pulumi.yaml").is_file():
                return cls(candidate, yaml.safe_load(path.read_text()))
        raise CliError(
            "no Pulumi.yaml project file found (searching upwards from "
            f"{folder}). If you have not created a project yet, use `pulumi new` to do so: no project file found"
        )

    @property
    def name(self) -> str:
        """Its name, which is the namespace of its configuration too."""
        return str(self.data["name"])

    def full(self, key: str) -> str:
        """A configuration key with its namespace."""
        return key if ":" in key else f"{self.name}:{key}"

    def declared(self) -> dict[str, dict[str, Any]]:
        """What Pulumi.yaml says of each full key: `type`, `default`, `value`, `secret`."""
        rows = self.data.get("config") or {}
        return {
            self.full(key): row if isinstance(row, dict) else {"value" if ":" in key else "default": row}
            for key, row in rows.items()
        }


class StackConfig:
    """Pulumi.<stack>.yaml, with its secrets encrypted."""

    def __init__(self, project: Project, stack: str) -> None:
        self.project, self.stack = project, stack
        self.path = project.folder / f"Pulumi.{stack}.yaml"
        self.data: dict[str, Any] = (yaml.safe_load(self.path.read_text()) or {}) if self.path.is_file() else {}

    def save(self) -> None:
        """Write the file."""
        self.path.write_text(yaml.safe_dump(self.data, sort_keys=False))

    def cipher(self) -> Cipher:
        """The stack's cipher; its salt is made when first asked for."""
        passphrase = os.environ.get("PULUMI_CONFIG_PASSPHRASE")
        if passphrase is None and (file := os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")):
            passphrase = Path(file).read_text().strip()
        if passphrase is None:
            raise CliError(
                "passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment "
                "variables"
            )
        salt, _, check = self.data.get("encryptionsalt", "").partition(":")
        if salt:
            cipher = Cipher.from_passphrase(passphrase, salt)
            try:
                cipher.decrypt(check)
            except CliError:
                raise CliError("incorrect passphrase") from None
            return cipher
        salt = secrets.token_hex(8)
        cipher = Cipher.from_passphrase(passphrase, salt)
        self.data["encryptionsalt"] = f"{salt}:{cipher.encrypt('pulumi')}"
        self.save()
        return cipher

    def put(self, key: str, value: Any) -> None:
        """Set a top-level key."""
        self.data.setdefault("config", {})[self.project.full(key)] = value

    def put_path(self, path: str, value: Any) -> None:
        """Set what `zones[0]` or `tags.owner` names."""
        key, *rest = path.replace("[", ".").replace("]", "").replace('"', "").split(".")
        here: Any = self.data.setdefault("config", {})
        steps: list[Any] = [self.project.full(key), *(int(step) if step.isdigit() else step for step in rest)]
        for step, following in itertools.pairwise(steps):
            empty: Any = [] if isinstance(following, int) else {}
            if isinstance(here, list):
                here.extend([empty] if step == len(here) else [])
                here = here[step]
            else:
                here = here.setdefault(step, empty)
        if isinstance(here, list) and steps[-1] == len(here):
            here.append(value)
        else:
            here[steps[-1]] = value

    def values(self) -> dict[str, Any]:
        """Each full key and its value as the files have it, secrets as `{"secure": ciphertext}`."""
        values = {
            key: row["default"] if "default" in row else row["value"]
            for key, row in self.project.declared().items()
            if "default" in row or "value" in row
        }
        return values | {self.project.full(key): value for key, value in (self.data.get("config") or {}).items()}

    def opened(self) -> tuple[dict[str, Any], set[str]]:
        """Each full key and its plain value, and the keys that hold secrets."""
        secret_keys: set[str] = set()

        def plain(key: str, value: Any) -> Any:
            if isinstance(value, dict) and set(value) == {"secure"}:
                secret_keys.add(key)
                return self.cipher().decrypt(value["secure"])
            if isinstance(value, dict):
                return {name: plain(key, item) for name, item in value.items()}
            return [plain(key, item) for item in value] if isinstance(value, list) else value

        return {key: plain(key, value) for key, value in self.values().items()}, secret_keys

    def checked(self) -> tuple[dict[str, str], set[str]]:
        """What a program is given: each value as text, structures as JSON, judged by what Pulumi.yaml declares."""
        values, secret_keys = self.opened()
        for key, row in self.project.declared().items():
            name = key.removeprefix(f"{self.project.name}:")
            if key not in values:
                raise CliError(f"validating stack config: Stack '{self.stack}' is missing configuration value '{name}'")
            kind = row.get("type")
            if row.get("secret") and key not in secret_keys:
                raise CliError(
                    f"validating stack config: Stack '{self.stack}' with configuration key '{name}' must be encrypted "
                    "as it's secret"
                )
            if kind and not _fits(values[key], row):
                of = f" of '{row['items']['type']}'" if kind == "array" and "items" in row else ""
                raise CliError(
                    f"validating stack config: Stack '{self.stack}' with configuration key '{name}' must be of type "
                    f"'{kind}{of}'"
                )
        return {key: as_text(value) for key, value in values.items()}, secret_keys


def as_text(value: Any) -> str:
    """A value of the configuration as programs get it."""
    return value if isinstance(value, str) else json.dumps(value)


def _fits(value: Any, row: dict[str, Any]) -> bool:
    kind = row["type"]
    if isinstance(value, str) and kind in {"integer", "number", "boolean"}:
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return False
    if kind in {"integer", "number"} and isinstance(value, bool):
        return False
    if not isinstance(value, TYPES[kind]):
        return False
    return kind != "array" or "items" not in row or all(_fits(item, row["items"]) for item in value)
