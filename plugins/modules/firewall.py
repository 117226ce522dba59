#!/usr/bin/python
"""Ansible module: what other hosts may reach on this one."""

DOCUMENTATION = r"""
module: firewall
short_description: Close a host to others, but for SSH and what is named, without locking anybody out
version_added: "0.1.0"
description:
  - With nftables, keeps a table of its own that denies what it does not name, and leaves other tables alone. Where ufw
    or firewalld is active, what is named is let in through them, and what they let in besides stays as it is.
  - SSH is always let in, at the port of the session in use and at all that sshd listens on or is configured for.
  - New rules are tried. The action plugin of the same name confirms them over a new connection; unless it does in time,
    a timer on the host puts the former rules back.
  - Over connections other than SSH nothing can be tried; rules that would not let in the SSH session that the play was
    started from are then refused.
options:
  openings:
    description: What may come in besides SSH.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is for, as a comment.
        type: str
        required: true
      ports:
        description: The ports.
        type: list
        elements: int
        required: true
      sources:
        description: The networks it is for; none for all.
        type: list
        elements: str
        default: []
  peers:
    description: What named hosts may reach besides.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is for, as a comment.
        type: str
        required: true
      sources:
        description: Their addresses or networks.
        type: list
        elements: str
        required: true
      ports:
        description: The ports; none for everything.
        type: list
        elements: int
        default: []
      protocol:
        description: The protocol of the ports.
        type: str
        choices: [tcp, udp]
        default: tcp
  ssh_sources:
    description: The networks that SSH is taken from; none for all.
    type: list
    elements: str
    default: []
  rollback_seconds:
    description: How long new rules wait to be confirmed.
    type: int
    default: 60
  step:
    description:
      - V(try) tries, V(confirm) keeps what is being tried, V(apply) does both at once.
      - The action plugin chooses.
    type: str
    choices: [try, confirm, apply]
    default: apply
  state:
    description: V(absent) takes out all that this module has put in.
    type: str
    choices: [present, absent]
    default: present
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says what would be changed and changes nothing.
  diff_mode:
    support: full
    description: Shows the rules before and after.
"""

EXAMPLES = r"""
- name: Let in SSH, HTTPS, and a peer
  rackllama.llm.firewall:
    openings:
      - name: gateway
        ports: [443]
    peers:
      - name: rpc
        sources: [192.0.2.12]
        ports: [50052]
"""

RETURN = r"""
manager:
  description: Who is in charge of the host's firewall - V(nftables), V(ufw) or V(firewalld).
  type: str
  returned: always
ssh_ports:
  description: The ports that SSH is let in at.
  type: list
  elements: int
  returned: always
tried:
  description: Whether rules are in force that wait to be confirmed.
  type: bool
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.errors import RackllamaError
from ansible_collections.rackllama.llm.plugins.module_utils.module import working_on
from ansible_collections.rackllama.llm.plugins.module_utils.network import firewall, firewall_state, ssh

OPENING = {
    "name": {"type": "str", "required": True},
    "ports": {"type": "list", "elements": "int", "required": True},
    "sources": {"type": "list", "elements": "str", "default": []},
}
PEER = {
    "name": {"type": "str", "required": True},
    "sources": {"type": "list", "elements": "str", "required": True},
    "ports": {"type": "list", "elements": "int", "default": []},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "openings": {"type": "list", "elements": "dict", "default": [], "options": OPENING},
            "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER},
            "ssh_sources": {"type": "list", "elements": "str", "default": []},
            "rollback_seconds": {"type": "int", "default": 60},
            "step": {"type": "str", "choices": ["try", "confirm", "apply"], "default": "apply"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    given, step = module.params, module.params["step"]
    ssh_ports: list[int] = []
    with working_on(module, "firewall"):
        if step != "confirm" and not module.check_mode:
            firewall_state.end_trial()
        ssh_ports = ssh.ports()
        change = firewall_state.change(openings(given, ssh_ports) if given["state"] == "present" else None)
        if step == "confirm":
            change.confirm()
        elif change and not module.check_mode:
            if step == "try":
                change.try_out(given["rollback_seconds"])
            else:
                require_session_stays(given, ssh_ports)
                change.carry_out()
        tried = not module.check_mode and firewall_state.is_being_tried()
        manager = firewall_state.manager()
    module.exit_json(changed=bool(change), manager=manager, ssh_ports=ssh_ports, tried=tried, diff=change.diff())


def openings(given: dict[str, Any], ssh_ports: list[int]) -> list[firewall.Opening]:
    return [
        firewall.opening("ssh", ssh_ports, given["ssh_sources"]),
        *(
            firewall.opening(each["name"], each["ports"], each["sources"])
            for each in given["openings"]
            if each["ports"]
        ),
        *firewall.peers(given["peers"]),
    ]


def require_session_stays(given: dict[str, Any], ssh_ports: list[int]) -> None:
    session = ssh.session()
    wanted = openings(given, ssh_ports)
    if session and given["state"] == "present" and not any(o.admits(session.client, session.port) for o in wanted):
        raise RackllamaError(
            f"the rules would lock out the SSH session in use, which comes from {session.client}",
            "name its network in firewall_ssh_sources",
        )


if __name__ == "__main__":
    main()
