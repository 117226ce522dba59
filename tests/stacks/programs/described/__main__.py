"""Describes hosts from its configuration: the first is reached by SSH, the others through Session Manager."""

import pulumi

from rackllama.provision.outputs import DescribedHost, SessionManager, Ssh, export_stack

config = pulumi.Config()
if config.require_bool("broken"):
    raise pulumi.RunError("no such machine")
described = [
    DescribedHost(
        name=f"gpu{number}",
        address=pulumi.Output.from_input(f"10.0.1.{number}"),
        user="ubuntu",
        gpus=["H100-80GB"] * 8,
        roles=["serving", "gateway"] if number == 1 else ["serving"],
        via=SessionManager(f"i-0a{number}", "us-east-1") if number > 1 else Ssh(),
        labels={"provider": "aws", "zone": f"us-east-1{'abc'[number - 1]}", "instance_type": "p5.48xlarge"},
    )
    for number in range(1, config.require_int("hosts") + 1)
]
export_stack(pulumi.export, described)
pulumi.export("token", config.require_secret("token"))
