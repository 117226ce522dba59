"""Lab hosts on this machine: the same outputs, inventory and playbooks as in a cloud, for nothing."""

import pulumi

from rackllama.provision.lab_host import Lab, LabArgs
from rackllama.provision.outputs import Cost, export_stack
from rackllama.provision.program import plain_errors

config = pulumi.Config()
args = LabArgs(lab=config.require("lab"), count=config.require_int("hosts"), suite=config.require("suite"))
with plain_errors():
    lab = Lab("lab", args)
costs = [Cost(f"lab {args.lab}, hosts: {args.count}", 0.0, "hour", note="memory and disk of this machine")]
export_stack(pulumi.export, [host.described for host in lab.hosts], costs=costs)
