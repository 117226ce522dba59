"""From what is declared in `rackllama_models` to what a host must hold and an engine must be told."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rackllama.host.errors import RackllamaError
from rackllama.mirror.lock import SHA256, Artefact, LockedFile, find, in_shard_order

ENGINES = ("ollama",)
DEFAULT_CONTEXT = 8192
DECLARED = ("name", "variant", "engine", "context", "parallel", "overrides", "hosts")
SETTINGS = ("licence", "template", "system", "parameters", "reasoning", "renderer", "parser")
INLINE = ("source", "shards", "sha256", *SETTINGS)
# Names become folders, unit instances and Ollama's `model:tag`: nothing that starts with a dot, no other separators.
NAME = re.compile(r"[a-z0-9][a-z0-9.]*([_-][a-z0-9][a-z0-9.]*)*")
LONGEST_NAME = 80


@dataclass(frozen=True)
class CatalogueEntry:
    """A known model. `trained_context` is in tokens; `template`, `system` and `parameters` are as Ollama wants them.

    An empty template stands for the GGUF's own. `reasoning` says that it thinks before it answers; `renderer` and
    `parser` name those built into Ollama, where they are to be used. `size_billions` counts all parameters,
    `active_billions` those that work on one token, where these are fewer; None where the maker does not say.
    """

    name: str
    family: str
    licence: str
    source: str
    variants: tuple[str, ...]
    trained_context: int
    parameters: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, Any]]
    template: str = ""
    system: str = ""
    reasoning: bool = False
    renderer: str = ""
    parser: str = ""
    size_billions: float | None = None
    active_billions: float | None = None


Catalogue = dict[str, CatalogueEntry]


@dataclass(frozen=True)
class ResolvedModel:
    """One model as a host serves it: `slug` names its files and units, `name` is `<name>:<variant>` for the engine.

    `shards` are in order, each with a known sha256; `sha256` is that of the landed file, where it is known.
    `parameters` include `num_ctx` (tokens) and the overrides.
    """

    slug: str
    name: str
    engine: str
    context: int
    parallel: int
    shards: tuple[LockedFile, ...]
    template: str
    system: str
    parameters: Mapping[str, Any]
    licence: str
    reasoning: bool = False
    renderer: str = ""
    parser: str = ""
    sha256: str | None = None

    def as_data(self, mirror: str = "") -> dict[str, Any]:
        """Plain data for a module: the fields, and each shard as name, sources, size and sha256."""
        return {
            "slug": self.slug,
            "name": self.name,
            "engine": self.engine,
            "context": self.context,
            "parallel": self.parallel,
            "shards": [
                {"name": shard.name, "sources": shard.sources(mirror), "size": shard.size, "sha256": shard.sha256}
                for shard in self.shards
            ],
            "template": self.template,
            "system": self.system,
            "parameters": dict(self.parameters),
            "licence": self.licence,
            "sha256": self.sha256,
            "reasoning": self.reasoning,
            "renderer": self.renderer,
            "parser": self.parser,
        }


def read_catalogue(folder: Path | None = None) -> Catalogue:
    """The known models, by name, of all files of `folder`: the package's own `families/` unless given."""
    entries: Catalogue = {}
    paths = (folder or Path(__file__).with_name("families")).glob("*.yaml")
    for path in sorted(paths, key=lambda path: path.stem):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, own in document["models"].items():
            entries[name] = _catalogue_entry(name, document.get("shared") or {}, own)
    return entries


def _catalogue_entry(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> CatalogueEntry:
    """A model as its file tells it: what it does not say itself, the file's `shared` says; their sources are added."""
    sources = {**shared.get("sources", {}), **own.get("sources", {})}
    told = {**shared, **own, "sources": sources}
    return CatalogueEntry(**{**told, "name": name, "variants": tuple(told["variants"])})


def slug_of(name: str, variant: str) -> str:
    """`<name>-<variant>` with `_` made `-`: the model's name in the lock, in paths and in units."""
    return f"{name}-{variant}".replace("_", "-")


def resolve(
    declaration: Mapping[str, Any], lock: Mapping[str, Artefact], catalogue: Mapping[str, CatalogueEntry]
) -> ResolvedModel:
    """One item of `rackllama_models`, completed from the catalogue and the lock, or from itself where it has `shards`.

    Raises RackllamaError naming the key that is wrong and what is accepted, or the command that locks the model.
    """
    if not isinstance(declaration, Mapping):
        raise RackllamaError(
            f"a model is declared as {declaration!r}, which is no mapping",
            "declare it as {name: NAME, variant: VARIANT}",
        )
    inline = "shards" in declaration
    accepted = (*DECLARED, *INLINE) if inline else DECLARED
    for key in declaration:
        _one_of(key, accepted, "a model's declaration has no key {}", "use one of")
    name, variant = (_name(declaration, key) for key in ("name", "variant"))
    engine = declaration.get("engine", "ollama")
    _one_of(engine, ENGINES, f"the engine of {name} is {{}}, which is not built", "use one of")
    _hosts(declaration)
    slug = slug_of(name, variant)
    if inline:
        known: Mapping[str, Any] = {key: declaration[key] for key in INLINE if key in declaration}
        shards, longest = _inline_shards(slug, declaration), None
    else:
        entry = catalogue[_one_of(name, catalogue, "the catalogue has no model {}", "declare it inline, or use one of")]
        _one_of(variant, entry.variants, f"{name} has no variant {{}} in the catalogue", "use one of")
        known, longest = vars(entry), entry.trained_context
        shards = in_shard_order(find(lock, slug).files_for())
        known = {**known, "sha256": lock[slug].merged_sha256 or ""}
    context = _positive(declaration, "context", min(DEFAULT_CONTEXT, longest or DEFAULT_CONTEXT))
    if longest and context > longest:
        raise RackllamaError(
            f"{name} was trained on {longest} tokens of context, and {context} are declared",
            f"declare a context of at most {longest}",
        )
    return ResolvedModel(
        slug=slug,
        name=f"{name}:{variant}",
        engine=engine,
        context=context,
        parallel=_positive(declaration, "parallel", 1),
        shards=shards,
        template=known.get("template", ""),
        system=known.get("system", ""),
        parameters={
            **_mapping(known, "parameters"),
            "num_ctx": context,
            **_mapping(declaration, "overrides"),
        },
        licence=known.get("licence", ""),
        reasoning=_flag(known, "reasoning"),
        renderer=_text(known, "renderer"),
        parser=_text(known, "parser"),
        sha256=_text(known, "sha256") or None,
    )


def resolve_all(
    declarations: Iterable[Mapping[str, Any]],
    lock: Mapping[str, Artefact],
    catalogue: Mapping[str, CatalogueEntry],
    places: Sequence[str] | None = None,
) -> list[ResolvedModel]:
    """The declared models, in order; with `places` (a host's name and its groups) only those whose `hosts` name one.

    Raises RackllamaError as `resolve`, and where two of them would be the same model on one host.
    """
    models: dict[str, ResolvedModel] = {}
    for declaration in declarations:
        # Before anything else, so that a model of other hosts which is not locked yet keeps nobody from working.
        hosts = _hosts(declaration) if isinstance(declaration, Mapping) else None
        if places is not None and hosts is not None and not set(hosts) & set(places):
            continue
        model = resolve(declaration, lock, catalogue)
        if model.slug in models:
            raise RackllamaError(
                f"{models[model.slug].name} and {model.name} would both be {model.slug} on one host",
                "declare each model once, or give them different `hosts`",
            )
        models[model.slug] = model
    return list(models.values())


def _one_of(value: Any, accepted: Iterable[str], sentence: str, remedy: str) -> str:
    accepted = list(accepted)
    if value in accepted:
        return str(value)
    near = difflib.get_close_matches(str(value), accepted, n=3)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise RackllamaError(sentence.format(repr(value)) + hint, f"{remedy}: {', '.join(accepted)}")


def _name(declaration: Mapping[str, Any], key: str) -> str:
    value = declaration.get(key)
    if not isinstance(value, str) or not NAME.fullmatch(value) or len(value) > LONGEST_NAME:
        raise RackllamaError(
            f"a model is declared with the {key} {value!r}",
            f"give a {key} of lower-case letters, digits and dots, parted by single `-` or `_`, such as gemma3-270m",
        )
    return value


def _hosts(declaration: Mapping[str, Any]) -> Sequence[str] | None:
    """The hosts and groups that a model is for, or None where it is for all."""
    hosts = declaration.get("hosts")
    if isinstance(hosts, str) or not isinstance(hosts, Sequence | None):
        raise RackllamaError(
            f"{declaration.get('name')} is declared with the hosts {hosts!r}",
            "give hosts as a list of hosts and groups",
        )
    return hosts


def _positive(declaration: Mapping[str, Any], key: str, default: int) -> int:
    value: object = declaration.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RackllamaError(f"{declaration['name']} is declared with {key} {value!r}", "give a number of 1 or more")
    return value


def _mapping(source: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = source.get(key, {})
    if not isinstance(value, Mapping):
        raise RackllamaError(f"a model is declared with {key} {value!r}", f"give {key} as a mapping of names to values")
    return value


def _flag(source: Mapping[str, Any], key: str) -> bool:
    value = source.get(key, False)
    if not isinstance(value, bool):
        raise RackllamaError(f"a model is declared with {key} {value!r}", f"give {key} as true or false")
    return value


def _text(source: Mapping[str, Any], key: str) -> str:
    value = source.get(key, "")
    if not isinstance(value, str):
        raise RackllamaError(f"a model is declared with {key} {value!r}", f"give {key} as a name that Ollama knows")
    return value


def _inline_shards(slug: str, declaration: Mapping[str, Any]) -> tuple[LockedFile, ...]:
    """The shards of an inline declaration, each with name, sha256 and maybe size, all in the folder `source`."""
    source, shards = declaration.get("source"), declaration["shards"]
    places = "https://HOST/FOLDER, s3://BUCKET/FOLDER or file:///FOLDER"
    remedy = f"give source: {places}, and shards: [{{name: FILE, sha256: HEX, size: BYTES}}, ...]"
    if isinstance(source, str) and re.match(r"[^/]*//[^/]*@|.*\?", source):
        raise RackllamaError(
            f"the source of {slug} has a password or a query in it, and addresses are written and told",
            "leave it out, and give what it needs in gguf_model_hub_token or gguf_model_source_env",
        )
    if not isinstance(source, str) or not re.fullmatch(r"(https?://[^\s/@]+|s3://[^\s/@]+|file://)(/\S*)?", source):
        raise RackllamaError(f"{slug} is declared inline with the source {source!r}", remedy)
    if not isinstance(shards, Sequence) or not all(isinstance(shard, Mapping) for shard in shards):
        raise RackllamaError(f"{slug} is declared inline with shards that are no list of mappings", remedy)
    for shard in shards:
        if not re.fullmatch(r"[\w-][\w.-]*", str(shard.get("name"))):
            raise RackllamaError(f"{slug} is declared inline with a shard named {shard.get('name')!r}", remedy)
        if not SHA256.fullmatch(str(shard.get("sha256"))):
            raise RackllamaError(f"{slug} is declared inline, and {shard['name']} has no sha256", remedy)
    return in_shard_order(
        LockedFile(f"{source.rstrip('/')}/{shard['name']}", shard.get("size"), shard["sha256"]) for shard in shards
    )
