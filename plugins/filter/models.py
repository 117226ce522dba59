"""Filter `rackllama.llm.models`: `rackllama_models` -> what one host serves, as plain data."""

from pathlib import Path

from ansible.errors import AnsibleFilterError

COLLECTION = Path(__file__).resolve().parents[2]


def models(declarations, host, groups=(), lock="", mirror=""):  # noqa: ANN001, ANN201 - Ansible's own tagged types
    """Resolve the models declared for `host`, by the catalogue and the lock."""
    try:
        from rackllama.catalog.models import read_catalogue, resolve_all  # noqa: PLC0415 - to say what is missing
        from rackllama.host.errors import RackllamaError  # noqa: PLC0415
        from rackllama.mirror.lock import read_lock  # noqa: PLC0415
    except ImportError as error:
        remedy = f"install it into the Python that runs Ansible: pip install {COLLECTION}"
        raise AnsibleFilterError(f"rackllama.llm.models needs the rackllama package. Remedy: {remedy}") from error
    try:
        locked = read_lock(Path(lock or COLLECTION / "artefacts.lock"))
        return [model.as_data(mirror) for model in resolve_all(declarations, locked, read_catalogue(), [host, *groups])]
    except RackllamaError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, object]:
        return {"models": models}
