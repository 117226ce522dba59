"""The inventory of a lab: its hosts, how to log in, and the depot they install from."""

from rackllama.lab.depot.depot import default_depot
from rackllama.lab.depot.server import PORT
from rackllama.lab.hosts import find_lab, network_gateway
from rackllama.provision.inventory import InventoryGroups, inventory_groups, ssh_variables


def lab_groups(name: str) -> InventoryGroups:
    """The hosts of that lab as Ansible is to know them. Raises RackllamaError where there is no such lab."""
    lab = find_lab(name)
    variables = {**ssh_variables(lab.key, lab.known_hosts), **depot_variables()}
    return inventory_groups(lab.inventory, variables).trusted()


def depot_variables() -> dict[str, str]:
    """What a lab's hosts install from: the depot's own lock, as it was built here, and its mirror."""
    return {
        "rackllama_mirror": f"http://{network_gateway()}:{PORT}",
        "rackllama_lock": str(default_depot().lock_path),
    }
