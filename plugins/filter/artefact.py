"""Filter `rackllama.llm.artefact`: the name of an artefact -> its one download for a host."""

from pathlib import Path

from ansible.errors import AnsibleFilterError

COLLECTION = Path(__file__).resolve().parents[2]


def artefact(name: str, machine: str, lock: str = "", mirror: str = "") -> dict[str, object]:
    """Look `name` up in the lock: a mapping with name, version, url, size and sha256."""
    try:
        from rackllama.host.errors import RackllamaError  # noqa: PLC0415 - a shim must load to say what is missing
        from rackllama.mirror.lock import find, read_lock  # noqa: PLC0415
    except ImportError as error:
        remedy = f"install it into the Python that runs Ansible: pip install {COLLECTION}"
        raise AnsibleFilterError(f"rackllama.llm.artefact needs the rackllama package. Remedy: {remedy}") from error
    try:
        found = find(read_lock(Path(lock or COLLECTION / "artefacts.lock")), name)
        return {**found.file_for(machine).as_data(mirror), "name": found.name, "version": found.version}
    except RackllamaError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, object]:
        return {"artefact": artefact}
