"""GPU hosts on AWS that serve a model: what it is, and what it may cost, is told by the stack's configuration."""

import pulumi

from rackllama.provision.aws.config import DEFAULTS, read_settings
from rackllama.provision.aws.site import ServingSite, planned_site
from rackllama.provision.outputs import export_stack
from rackllama.provision.program import plain_errors

config = pulumi.Config()
with plain_errors():
    settings = read_settings(
        {key: config.get(key) for key in DEFAULTS},
        pulumi.Config("aws").get("region"),
        f"{pulumi.get_project()}-{pulumi.get_stack()}",
    )
    planned = planned_site(settings)
    site = ServingSite("rackllama", planned)
export_stack(pulumi.export, site.hosts, planned.choice.as_data(), site.costs)
pulumi.export("entrance", site.entrance)
