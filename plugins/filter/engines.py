"""Filter `rackllama.llm.engines`: `gateway_engines` -> what the gateway's configuration says of them, as plain data."""

from pathlib import Path

from ansible.errors import AnsibleFilterError

COLLECTION = Path(__file__).resolve().parents[2]


def engines(declared):  # noqa: ANN001, ANN201 - Ansible's own tagged types
    """Check the declared engines, and resolve them to a mapping with engines and files."""
    try:
        from rackllama.gateway.engines import routing  # noqa: PLC0415 - a shim must load to say what is missing
        from rackllama.host.errors import RackllamaError  # noqa: PLC0415
    except ImportError as error:
        remedy = f"install it into the Python that runs Ansible: pip install {COLLECTION}"
        raise AnsibleFilterError(f"rackllama.llm.engines needs the rackllama package. Remedy: {remedy}") from error
    try:
        return routing(declared)
    except RackllamaError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, object]:
        return {"engines": engines}
