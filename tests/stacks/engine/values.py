"""Property values as they travel: plain JSON data, with secrets and unknowns marked as in Pulumi's protocol."""

from collections.abc import Callable
from typing import Any

from google.protobuf import struct_pb2

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Properties = dict[str, Any]


def from_struct(struct: struct_pb2.Struct) -> Properties:
    """The data of a message; whole numbers become int."""
    return {key: _from_value(value) for key, value in struct.fields.items()}


def to_struct(properties: Properties) -> struct_pb2.Struct:
    """The message of data."""
    struct = struct_pb2.Struct()
    struct.update(properties)
    return struct


def _from_value(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_from_value(item) for item in value.list_value.values]
        case "number_value":
            return int(value.number_value) if value.number_value.is_integer() else value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
    return None


def secret(value: Any) -> Any:
    """The value marked as secret, once."""
    return value if is_secret(value) else {SIGNATURE: SECRET, "value": value}


def is_secret(value: Any) -> bool:
    """Whether this very value is marked; what it holds may be marked on its own."""
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def transform(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with each secret in it, and all that is not a container, changed."""
    if is_secret(value):
        return change(value)
    if isinstance(value, dict):
        return {key: transform(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [transform(item, change) for item in value]
    return change(value)


def unwrapped(value: Any) -> Any:
    """The value without its marks of secrecy."""
    return transform(value, lambda item: unwrapped(item["value"]) if is_secret(item) else item)


def masked(value: Any) -> Any:
    """The value as it may be shown."""
    return transform(value, lambda item: "[secret]" if is_secret(item) else item)


def has_unknowns(value: Any) -> bool:
    """Whether some of it is known only after an update."""
    if isinstance(value, dict):
        return any(has_unknowns(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknowns(item) for item in value)
    return bool(value == UNKNOWN)


def secret_as_in(outputs: Any, inputs: Any) -> Any:
    """The outputs, where what is secret in the inputs is marked too: many providers give it back without the mark."""
    if is_secret(inputs):
        return secret(outputs)
    if isinstance(outputs, dict) and isinstance(inputs, dict) and not is_secret(outputs):
        return {key: secret_as_in(value, inputs.get(key)) for key, value in outputs.items()}
    if isinstance(outputs, list) and isinstance(inputs, list) and len(outputs) == len(inputs):
        return [secret_as_in(value, source) for value, source in zip(outputs, inputs, strict=True)]
    return outputs


def with_ignored(news: Properties, olds: Properties, paths: list[str]) -> Properties:
    """The new inputs with the old value at each path, `tags` or `tags.Name`, that is to be ignored."""
    for path in paths:
        key, _, rest = path.partition(".")
        if rest and isinstance(news.get(key), dict) and isinstance(olds.get(key), dict):
            news = {**news, key: with_ignored(news[key], olds[key], [rest])}
        elif key in olds:
            news = {**news, key: olds[key]}
        else:
            news = {name: value for name, value in news.items() if name != key}
    return news
