"""Filter `rackllama.llm.host_program`: the name of the program for serving hosts -> its release, as plain data."""

from pathlib import Path

from ansible.errors import AnsibleFilterError

COLLECTION = Path(__file__).resolve().parents[2]


def host_program(name: str) -> dict[str, str]:
    """Pack the program: a mapping with name, version, sha256 and content (a tar in base64)."""
    try:
        from rackllama.landing.program import host_program as release  # noqa: PLC0415 - to say what is missing
    except ImportError as error:
        remedy = f"install it into the Python that runs Ansible: pip install {COLLECTION}"
        raise AnsibleFilterError(f"rackllama.llm.host_program needs the rackllama package. Remedy: {remedy}") from error
    return {**release(), "name": name}


class FilterModule:
    def filters(self) -> dict[str, object]:
        return {"host_program": host_program}
