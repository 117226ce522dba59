"""From `gateway_engines`, what is declared, to what the gateway's configuration says of them."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from rackllama.host.errors import RackllamaError

NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
MODEL = re.compile(r"[\w.:/@+-]+", re.ASCII)
KEYS = {"name", "url", "models"}


def routing(declared: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The engines, each with `name` and `address` (HOST:PORT), and the `files` that route models to them, by name.

    One engine gets every request; of several, each gets those for its `models`. Raises RackllamaError for what is
    declared twice or not well.
    """
    engines = [_engine(item) for item in declared]
    if not engines:
        raise RackllamaError("the gateway has no engine", "declare one or more in gateway_engines")
    models: dict[str, str] = {}
    for engine in engines:
        if [other["name"] for other in engines].count(engine["name"]) > 1:
            raise RackllamaError(f"two engines are named {engine['name']}", "give each its own name in gateway_engines")
        if len(engines) > 1 and not engine["models"]:
            raise RackllamaError(
                f"nothing says which models the engine {engine['name']} serves",
                "give each of several gateway_engines its models",
            )
        for model in engine["models"]:
            if model in models:
                raise RackllamaError(
                    f"the model {model} is at the engines {models[model]} and {engine['name']}",
                    "let one of gateway_engines serve it",
                )
            models[model] = engine["name"]
    return {
        "engines": [{"name": engine["name"], "address": engine["address"]} for engine in engines],
        "files": {
            "models.map": "".join(f"{model} {engine}\n" for model, engine in models.items()),
            "models.json": json.dumps({"object": "list", "data": [_listed(model) for model in models]}) + "\n",
            "unknown-model.json": json.dumps(_unknown(list(models))) + "\n",
        },
    }


def _engine(item: Mapping[str, Any]) -> dict[str, Any]:
    name, url, models = item.get("name"), str(item.get("url", "")), item.get("models") or []
    remedy = "declare it in gateway_engines as {name: NAME, url: http://HOST:PORT, models: [NAME, ...]}"
    if not isinstance(name, str) or not NAME.fullmatch(name) or set(item) - KEYS:
        raise RackllamaError(f"an engine of the gateway is declared as {dict(item)!r}", remedy)
    parts = urlsplit(url)
    if parts.scheme != "http" or not re.fullmatch(r"[\w.-]+:\d+|\[[0-9a-f:]+\]:\d+", parts.netloc) or parts.path:
        raise RackllamaError(f"the engine {name} is declared with the url {url!r}", remedy)
    for model in models:
        if not isinstance(model, str) or not MODEL.fullmatch(model):
            raise RackllamaError(f"the engine {name} is declared with the model {model!r}", remedy)
    return {"name": name, "address": parts.netloc, "models": models}


def _listed(model: str) -> dict[str, Any]:
    """A model as the OpenAI API lists it."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "rackllama"}


def _unknown(models: list[str]) -> dict[str, Any]:
    message = f"there is no such model here; there are: {', '.join(models)}"
    return {"error": {"message": message, "type": "gateway", "code": 404}}
