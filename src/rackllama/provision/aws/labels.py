"""Whose resources these are: the tags that everything on AWS carries, by which it is found and billed."""

import re
from dataclasses import dataclass

from rackllama.host.errors import RackllamaError

TAG = re.compile(r"[\w .:/=+@-]{1,256}")
STACK, OWNER, COST_CENTER = "rackllama-stack", "owner", "cost-center"


@dataclass(frozen=True)
class Labels:
    """The stack that something belongs to, who answers for it, and who pays.

    Raises RackllamaError for what no tag may hold: IAM refuses it, in the middle of an `up`.
    """

    stack: str
    owner: str
    cost_center: str

    def __post_init__(self) -> None:
        for what, value in (("owner", self.owner), ("cost_center", self.cost_center)):
            if not TAG.fullmatch(value):
                raise RackllamaError(
                    f"{what} is {value!r}, which no tag may hold",
                    "write 1 to 256 letters, digits, spaces and _ . : / = + - @",
                )

    def tags(self, name: str) -> dict[str, str]:
        """The tags of the resource `name`."""
        return {"Name": name, STACK: self.stack, OWNER: self.owner, COST_CENTER: self.cost_center}
