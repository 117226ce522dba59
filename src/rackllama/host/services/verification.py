"""Verify what is deployed: every service that was declared on this host, and every model that was landed."""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from .. import systemd
from ..errors import RackllamaError
from ..files import read_json
from ..models import landing_unit, plan_files
from ..models.conformance import conformance_checks
from ..models.model import records
from ..models.ollama import Ollama
from ..models.ollama_store import OllamaStore, full_name
from ..models.planned import plan_checks, with_advice
from ..network.sockets import listeners
from ..report import Check
from . import running
from .unit import SERVICES


def service_checks() -> List[Check]:
    """The checks of all services declared on this host; none declared is a failure, not a success."""
    records = [record for path in sorted(SERVICES.glob("*.json")) for record in [read_json(path)] if record]
    if not records:
        return [Check("services", False, "at least one", "none declared", "converge first: playbooks/site.yml")]
    return [check for record in records for check in _checks_of_service(record)]


def model_checks(expected: Sequence[str], url: str, reasoning: Sequence[str] = ()) -> List[Check]:
    """The checks of the models that ought to be served under these names by the Ollama at `url`.

    Those that `reasoning` names as well must think before they answer. One with a plan must take what that says.
    """
    server = Ollama(url)
    try:
        served = {full_name(model.name).casefold(): model.digest for model in server.models()}
    except RackllamaError as error:
        return [Check("models", False, "an answering engine", error.message, error.remedy)]
    landed = {record["name"]: record for record in records()}
    stores = {job["name"]: OllamaStore(Path(job["store"])) for job in landing_unit.jobs().values()}
    checks: List[Check] = []
    for name in expected:
        identity = _identity(name, served.get(full_name(name).casefold()), landed.get(name, {}))
        checks.append(identity)
        if identity.ok:
            weights = stores[name].blob(landed[name]["weights"]["blob"])
            plan = plan_files.plan_of(landed[name]["slug"])
            checks += with_advice(conformance_checks(name, server, weights, name in reasoning), plan)
            if plan:
                checks += plan_checks(name, plan, server, str(weights))
    return checks


def _checks_of_service(record: Dict[str, Any]) -> List[Check]:
    name = record["name"]
    reasons = running.differences_here(name) or running.reasons_to_reload(name)
    converge = "converge again: playbooks/site.yml"
    checks = [
        Check(
            f"{name} runs as declared", not reasons, "no difference", "; ".join(reasons) or "no difference", converge
        ),
        _answers(name, record["health"]),
        _sandbox(name, float(record["exposure_limit"])),
    ]
    checks += [_loopback(name, port) for port in record["ports"]]
    return checks + [_public(name, port) for port in record.get("public_ports", [])]


def _answers(name: str, health: Mapping[str, Any]) -> Check:
    try:
        running.wait_until_healthy(name, health)
    except RackllamaError as error:
        return Check(
            f"{name} answers", False, "a healthy answer", error.message.split(". Its journal")[0], error.remedy
        )
    return Check(f"{name} answers", True, "a healthy answer", str(health.get("url") or health.get("port") or "active"))


def _sandbox(name: str, limit: float) -> Check:
    score = systemd.security_score(f"{name}.service")
    remedy = f"see: systemd-analyze security {name}"
    return Check(f"{name} is sandboxed", score <= limit, f"exposure at most {limit}", f"exposure {score}", remedy)


def _loopback(name: str, port: int) -> Check:
    found = listeners(port)
    shown = ", ".join(sorted({listener.address for listener in found})) or "nobody listens"
    return Check(
        f"{name} port {port} is closed to others",
        bool(found) and all(listener.is_loopback for listener in found),
        "loopback only",
        shown,
        "bind it to 127.0.0.1; other hosts come through the gateway",
    )


def _public(name: str, port: int) -> Check:
    found = listeners(port)
    shown = ", ".join(sorted({listener.address for listener in found})) or "nobody listens"
    remedy = f"see: systemctl status {name}"
    return Check(f"{name} port {port} is open to others", bool(found), "a listener", shown, remedy)


def _identity(name: str, found: Optional[str], record: Mapping[str, Any]) -> Check:
    """Whether what the engine has under a name is what was landed; `found` is the digest of its manifest."""
    wanted, manifest = f"{name} is the one that was landed", record.get("manifest")
    told = f"manifest {found[:12]}" if found else "not in the engine's list"
    ought = f"manifest {str(manifest)[:12]}" if manifest else "a landing"
    return Check(wanted, found is not None and found == manifest, ought, told, "converge again: playbooks/site.yml")
