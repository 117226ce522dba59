#!/usr/bin/python
"""Ansible module: the certificate of a service."""

DOCUMENTATION = r"""
module: host_certificate
short_description: Give a service a certificate, by a site's own authority or from files of the host
version_added: "0.1.0"
description:
  - Keeps certificate, chain and key in one file that root and the group of the service may read.
  - Without O(certificate), an action plugin lets the authority on the controller sign the host's request, where the
    certificate is missing, ends soon, is for other names or of another authority. The host's key never leaves the
    host, that of the authority never the controller, where the Python package C(rackllama) is needed.
options:
  path:
    description: The file that the service reads.
    type: path
    required: true
  group:
    description: The group of the service.
    type: str
    required: true
  certificate:
    description: A certificate with its chain on the host, to be used as it is.
    type: path
  certificate_key:
    description: Its key on the host.
    type: path
  names:
    description: The host's names and addresses, the first of all of its common name.
    type: list
    elements: str
    default: []
  renewal_days:
    description: From how many days before its end a certificate is renewed.
    type: int
    default: 30
  ca_dir:
    description: The folder on the controller where the authority is kept, and made where there is none.
    type: str
  ca_path:
    description: Where on the host the authority's certificate is put, for clients there.
    type: path
  ca_certificate:
    description: The authority's certificate in PEM; given by the action plugin.
    type: str
  signed:
    description: The signed certificate in PEM; given by the action plugin.
    type: str
  requested:
    description: Whether a request is made; given by the action plugin.
    type: bool
    default: false
  reasons:
    description: Why the certificate is renewed; given by the action plugin.
    type: list
    elements: str
    default: []
author: The rackllama maintainers
attributes:
  check_mode:
    support: full
    description: Says why it would renew and changes nothing.
  diff_mode:
    support: full
    description: Shows the reasons.
"""

EXAMPLES = r"""
- name: Give the gateway a certificate of the site's authority
  rackllama.llm.host_certificate:
    path: /etc/rackllama/gateway/certificate.pem
    group: gateway
    names: [gpu1.example.com, 192.0.2.11]
    ca_dir: ~/.config/rackllama/example/ca
"""

RETURN = r"""
present:
  description: The certificate with its chain, in PEM, as it was before; empty where there was none.
  type: str
  returned: always
request:
  description: A certificate request in PEM.
  type: str
  returned: where one was made
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackllama.llm.plugins.module_utils.files import read_text, write_atomically
from ansible_collections.rackllama.llm.plugins.module_utils.gateway.certificate import CertificateFile
from ansible_collections.rackllama.llm.plugins.module_utils.module import difference, working_on


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "certificate": {"type": "path"},
            "certificate_key": {"type": "path", "no_log": False},
            "names": {"type": "list", "elements": "str", "default": []},
            "renewal_days": {"type": "int", "default": 30},
            "ca_dir": {"type": "str"},
            "ca_path": {"type": "path"},
            "ca_certificate": {"type": "str"},
            "signed": {"type": "str"},
            "requested": {"type": "bool", "default": False},
            "reasons": {"type": "list", "elements": "str", "default": []},
        },
        required_together=[("certificate", "certificate_key")],
        supports_check_mode=True,
    )
    given, may_change = module.params, not module.check_mode
    file = CertificateFile(Path(given["path"]), given["group"])
    with working_on(module, f"{given['group']}-certificate"):
        result = {"present": file.certificate()}
        reasons = given["reasons"]
        if given["requested"] and may_change:
            result["request"] = file.request()
        if given["signed"] and may_change:
            file.answer(given["signed"])
        if given["certificate"]:
            pair = Path(given["certificate"]), Path(given["certificate_key"])
            reasons = ["another one is given"] if file.differs(*pair) else []
            if reasons and may_change:
                file.take(*pair)
        if (
            given["ca_path"]
            and given["ca_certificate"]
            and read_text(Path(given["ca_path"])) != given["ca_certificate"]
        ):
            reasons = [*reasons, "the authority's own certificate is another"]
            if may_change:
                write_atomically(Path(given["ca_path"]), given["ca_certificate"])
    module.exit_json(changed=bool(reasons), diff=difference([], reasons, header=given["path"]), **result)


if __name__ == "__main__":
    main()
