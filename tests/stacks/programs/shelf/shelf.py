"""A dynamic provider that keeps each resource as a file, so that a test sees what was made, and in which order."""

from pathlib import Path
from typing import Any

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult


class Files(ResourceProvider):
    """`place` is part of the file's name, so a change of it replaces the file."""

    def _write(self, props: dict[str, Any]) -> dict[str, Any]:
        path = Path(props["folder"]) / f"{props['place']}-{props['name']}"
        path.write_text(props["text"])
        return {**props, "path": str(path)}

    def _note(self, folder: str, line: str) -> None:
        with (Path(folder) / "journal").open("a") as journal:
            journal.write(f"{line}\n")

    def create(self, props: dict[str, Any]) -> CreateResult:
        if props["text"] == "broken":
            raise RuntimeError("the shelf broke down")
        outs = self._write(props)
        self._note(props["folder"], f"create {Path(outs['path']).name}")
        return CreateResult(outs["path"], outs)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        replaces = [key for key in ("folder", "place", "name") if olds[key] != news[key]]
        return DiffResult(changes=bool(replaces) or olds["text"] != news["text"], replaces=replaces)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        outs = self._write(news)
        self._note(news["folder"], f"update {Path(outs['path']).name}")
        return UpdateResult(outs)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        path = Path(id_)
        return ReadResult(id_, {**props, "text": path.read_text()}) if path.exists() else ReadResult("", props)

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        self._note(props["folder"], f"delete {Path(id_).name}")
        Path(id_).unlink(missing_ok=True)


class File(Resource):
    """One file."""

    path: Output[str]

    def __init__(
        self, name: str, folder: Input[str], text: Input[str], place: Input[str], opts: ResourceOptions | None = None
    ) -> None:
        props = {"name": name, "folder": folder, "text": text, "place": place, "path": None}
        super().__init__(Files(), name, props, opts)
