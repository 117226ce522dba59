"""Two files, the second of which needs the first, in a component, and a third that may be left out."""

import pulumi
from pulumi import ResourceOptions
from shelf import File

config = pulumi.Config()
folder, place = config.require("folder"), config.require("place")


class Shelf(pulumi.ComponentResource):
    def __init__(self, name: str) -> None:
        super().__init__("tests:index:Shelf", name)
        own = ResourceOptions(
            parent=self,
            protect=config.require_bool("protect"),
            retain_on_delete=config.require_bool("retain"),
            delete_before_replace=config.require_bool("first") or None,
        )
        self.base = File("base", folder, config.require("text"), place, own)
        self.top = File("top", folder, self.base.path, "top", ResourceOptions(parent=self))
        self.register_outputs({"path": self.top.path})


shelf = Shelf("shelf")
if config.require_bool("also"):
    File("also", folder, config.require_secret("token"), "also", ResourceOptions(depends_on=[shelf]))
if config.require_bool("broken"):
    File("broken", folder, "broken", "x", ResourceOptions(depends_on=[shelf]))
pulumi.export("path", shelf.base.path)
pulumi.export("token", config.require_secret("token"))
