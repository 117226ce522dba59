"""The Modelfile: how Ollama is to run a model, in the form that people read and `ollama create` takes."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Union

from ..errors import RackllamaError

Parameter = Union[str, int, float, bool, List[str]]


@dataclass(frozen=True)
class ModelSettings:
    """All that a model's Modelfile says beside its weights; empty means: as the GGUF itself says.

    `renderer` and `parser` name what is built into Ollama for a family of models.
    """

    template: str = ""
    system: str = ""
    licence: str = ""
    renderer: str = ""
    parser: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def for_api(self) -> Dict[str, Any]:
        """The same as the body of `POST /api/create` takes it."""
        given = {
            "template": self.template,
            "system": self.system,
            "license": self.licence,
            "renderer": self.renderer,
            "parser": self.parser,
            "parameters": dict(self.parameters),
        }
        return {name: value for name, value in given.items() if value}


def render(weights: str, settings: ModelSettings) -> str:
    """The text of the Modelfile; a list parameter, as `stop`, becomes one line for each of its values."""
    lines = [f"FROM {weights}"]
    if settings.template:
        lines.append(f"TEMPLATE {_block(settings.template)}")
    lines += [f"{word} {name}" for word, name in (("RENDERER", settings.renderer), ("PARSER", settings.parser)) if name]
    for name, value in sorted(settings.parameters.items()):
        values = value if isinstance(value, list) else [value]
        lines.extend(f"PARAMETER {name} {_value(item)}" for item in values)
    if settings.system:
        lines.append(f"SYSTEM {_block(settings.system)}")
    if settings.licence:
        lines.append(f"LICENSE {_block(settings.licence)}")
    return "\n".join(lines) + "\n"


def _value(value: Union[str, int, float, bool]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _block(text: str) -> str:
    if '"""' in text:
        raise RackllamaError(
            'a Modelfile block cannot hold """', "take the three quotes out of the template or system text"
        )
    return f'"""{text}"""'
