"""The stack of own machines: from its configuration to components, to what every stack exports."""

import pulumi

from rackllama.provision.existing import ExistingHost
from rackllama.provision.outputs import export_stack
from rackllama.provision.program import plain_errors
from rackllama.provision.redfish.server import RedfishServer
from rackllama.provision.redfish.settings import existing, require_one_name_each, servers

config = pulumi.Config()
with plain_errors():
    server_args = servers(config.get_object("servers") or [], config.get_object("authorized_keys") or [])
    existing_args = existing(config.get_object("existing") or [])
    require_one_name_each([each.host.name for each in (*server_args, *existing_args)])
    managed = [RedfishServer(each.host.name, each) for each in server_args]
    running = [ExistingHost(each.host.name, each) for each in existing_args]

# Owners know what their machines cost; nothing is rented, and so nothing is billed on after a destroy.
export_stack(pulumi.export, [each.host for each in (*managed, *running)])
pulumi.export("machines", {each.host.name: each.inventory for each in managed})
