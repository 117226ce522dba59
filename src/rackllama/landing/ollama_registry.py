"""Models of the Ollama registry: `ollama:[NAMESPACE/]NAME[:TAG]`, of which the weights are taken and nothing else.

A manifest lists layers by media type, digest and size. The weights are one GGUF, a layer whose digest is its sha256.
"""

import re
from dataclasses import dataclass

from rackllama.host.errors import RackllamaError
from rackllama.mirror.lock import LockedFile
from rackllama.mirror.metadata import Fetch, json_document, published_sha256, well_formed

REGISTRY = "https://registry.ollama.ai"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.ollama.image."
PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
NAME = re.compile(rf"(?:(?P<namespace>[A-Za-z0-9_][A-Za-z0-9_-]{{0,79}})/)?(?P<model>{PART})(?::(?P<tag>{PART}))?")


@dataclass(frozen=True)
class RegistryModel:
    """The weights of a model, and the kinds of the other layers that it has: template, params, projector …"""

    weights: LockedFile
    others: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell of the layers that are not taken."""
        extensions = [kind for kind in self.others if kind in ("projector", "adapter", "draft")]
        settings = [kind for kind in self.others if kind not in extensions]
        told = []
        if extensions:
            told.append(f"not taken: {', '.join(extensions)}; without it the model is not the one of the registry")
        if settings:
            told.append(f"only the weights are taken, not {', '.join(settings)}: put your own Modelfile on it")
        return tuple(told)


def registry_model(name: str, fetch: Fetch) -> RegistryModel:
    """What the registry has under a name. Raises RackllamaError where that is no one GGUF."""
    found = NAME.fullmatch(name)
    if not found:
        raise RackllamaError(
            f"ollama:{name} names no model of the Ollama registry",
            "write ollama:NAME:TAG or ollama:NAMESPACE/NAME:TAG; a model of a hub is hf:OWNER/REPO:QUANT",
        )
    place = f"{REGISTRY}/v2/{found['namespace'] or 'library'}/{found['model']}"
    source = f"{place}/manifests/{found['tag'] or 'latest'}"
    document = json_document(fetch(source), source, "layers")
    with well_formed(source):
        layers = [(str(layer["mediaType"]).removeprefix(LAYER), layer) for layer in document["layers"]]
        weights = [layer for kind, layer in layers if kind == "model"]
        others = tuple(dict.fromkeys(kind for kind, _ in layers if kind != "model"))
        if len(weights) != 1:
            raise RackllamaError(
                f"ollama:{name} is not one GGUF: its layers are {', '.join(kind for kind, _ in layers) or 'none'}",
                "choose another tag of it",
            )
        digest = published_sha256(weights[0]["digest"].removeprefix("sha256:"), source)
        return RegistryModel(LockedFile(f"{place}/blobs/sha256:{digest}", int(weights[0]["size"]), digest), others)
