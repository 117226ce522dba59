"""Models among the files of a folder or repository, and which of them is meant."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from rackllama.host.errors import RackllamaError
from rackllama.mirror.lock import SHARD

BESIDE_MODELS = ("mmproj", "imatrix")  # what else comes as GGUF: image projectors, quantization statistics
MOST_LISTED = 40


def shard_names(name: str) -> list[str]:
    """The names of all shards of a model, in order, from that of one; of an unsplit model it is the only one."""
    found = SHARD.fullmatch(name)
    if not found:
        return [name]
    count = int(found["count"])
    if not 1 <= int(found["number"]) <= count:
        raise RackllamaError(f"there is no shard {found['number']} of {found['count']}", "name the first shard")
    return [f"{found['model']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def chosen(paths: Iterable[str], wanted: str | None, where: str) -> list[str]:
    """The paths of all shards, in order, of the model meant: by the path of one, a quantization, or as the only one.

    A quantization is what the name of the file, or of its folder, ends with; case does not count, and with `UD-` before
    it it is another one. Raises RackllamaError, listing what there is, where several models are meant, or none, or
    where a shard is missing.
    """
    there = set(paths)
    if wanted in there:
        meant = [wanted]
    else:
        meant = [path for path in _models(there) if wanted is None or _ends_with(path, wanted)]
        meant = [path for path in meant if not _ends_with(path, f"UD-{wanted}")] or meant
    if len(meant) != 1:
        what = f"{where} has {'several models' if meant else 'no model'}{f' for {wanted}' if wanted else ''}"
        listed = ", ".join((meant or _models(there))[:MOST_LISTED])
        raise RackllamaError(what, f"name one of: {listed}" if listed else "choose another: it has no model as GGUF")
    folder, slash, name = meant[0].rpartition("/")
    shards = [f"{folder}{slash}{shard}" for shard in shard_names(name)]
    missing = [shard for shard in shards if shard not in there]
    if missing:
        raise RackllamaError(f"{where} lacks {', '.join(missing[:3])}", "choose another one, or complete it first")
    return shards


def path_named(source: str) -> Path | None:
    """The file or folder that a source names which is no address; None where it can only be a name of the lock.

    Raises RackllamaError where it names a file of another machine.
    """
    parts = urlsplit(source)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise RackllamaError(f"{source} names no file of this machine", "write file:///PATH")
        return Path(unquote(parts.path))
    return Path(source).absolute() if "/" in source or source.endswith(".gguf") else None


def paths_on_disk(path: Path) -> list[Path]:
    """The shards beside one, in order, whether they are there or not; or those of the one model in a folder."""
    if path.is_dir():
        return [path / name for name in chosen([found.name for found in path.iterdir()], None, str(path))]
    return [path.with_name(name) for name in shard_names(path.name)]


def _models(paths: Iterable[str]) -> list[str]:
    """The path of the first shard of each model."""
    first: dict[str, str] = {}
    for path in sorted(paths):
        name = PurePosixPath(path).name.lower()
        if name.endswith(".gguf") and not name.startswith(BESIDE_MODELS):
            found = SHARD.fullmatch(path)
            first.setdefault(f"{found['model']} of {found['count']}" if found else path, path)
    return list(first.values())


def _ends_with(path: str, quantization: str) -> bool:
    """Whether the name of a model's file or folder ends with that quantization."""
    found = SHARD.fullmatch(path)
    *folders, name = (found["model"] if found else path.removesuffix(".gguf")).lower().replace(".", "-").split("/")
    return any(f"-{part}".endswith(f"-{quantization.lower().replace('.', '-')}") for part in (name, *folders[-1:]))
