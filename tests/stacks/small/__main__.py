"""A network, a host in a zone that may refuse it, and a volume that is retained: each no more than an id."""

import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider


class ThingProvider(ResourceProvider):
    serialize_as_secret_always = False

    def create(self, props):
        refusal = props["refusals"].get(props["zone"])
        if refusal:
            raise RuntimeError(f"operation error EC2: RunInstances, https response error, api error {refusal}")
        return CreateResult(props["id"], {"zone": props["zone"]})


class Thing(Resource, name="Thing"):
    def __init__(self, name, id_, zone="", opts=None):
        refusals = config.get_object("refusals") or {}
        super().__init__(ThingProvider(), name, {"id": id_, "zone": zone, "refusals": refusals}, opts)


config = pulumi.Config()
zone = config.get("zone") or config.require_object("zones")[0]
network = Thing("network", "net-1")
host = Thing("host", f"i-{zone}", zone, pulumi.ResourceOptions(depends_on=[network]))
kept = pulumi.ResourceOptions(
    retain_on_delete=True, protect=config.get_bool("protected") or False, depends_on=[network]
)
volume = Thing("models", "vol-1", opts=kept)
pulumi.export("hosts", [{"name": "gpu1", "address": host.id}])
pulumi.export(
    "costs",
    [
        {"what": "host gpu1", "usd": 2.0, "unit": "hour", "survives_destroy": False, "id": host.id},
        {"what": "model volume", "usd": 40.0, "unit": "month", "survives_destroy": True, "id": volume.id},
    ],
)
