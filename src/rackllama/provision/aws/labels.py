"""Whose resources these are: the tags that everything on AWS carries, by which it is found and billed."""

from dataclasses import dataclass

STACK, OWNER, COST_CENTER = "rackllama-stack", "owner", "cost-center"


@dataclass(frozen=True)
class Labels:
    """The stack that something belongs to, who answers for it, and who pays."""

    stack: str
    owner: str
    cost_center: str

    def tags(self, name: str) -> dict[str, str]:
        """The tags of the resource `name`."""
        return {"Name": name, STACK: self.stack, OWNER: self.owner, COST_CENTER: self.cost_center}
