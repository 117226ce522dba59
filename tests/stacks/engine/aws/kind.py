"""One type of resource of the double."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .cloud import Cloud, Properties


def _retag(cloud: Cloud, id_: str, olds: Properties, news: Properties) -> None:
    cloud.retag(id_, olds, news)


def _as_found(found: Any) -> Properties:
    return dict(found)


@dataclass(frozen=True)
class Kind:
    """How a type is made, read, changed and deleted.

    `label` is how pulumi-aws calls it in its errors. `create` gives the id. `read` gives what is found, or None where
    it is gone, which `outputs` turns into properties. `replace` are the inputs whose change needs a new resource,
    `required` those without which it is refused, and `named` tells that it gets a name where the program gives none.
    """

    label: str
    create: Callable[[Cloud, Properties], str]
    read: Callable[[Cloud, str, Properties], Any]
    delete: Callable[[Cloud, str, Properties], None]
    replace: set[str] = field(default_factory=set)
    required: set[str] = field(default_factory=set)
    update: Callable[[Cloud, str, Properties, Properties], None] = _retag
    outputs: Callable[[Any], Properties] = _as_found
    named: bool = False
    delete_first: bool = False
