"""Verify what is deployed: every service that was declared on this host, and every model that was landed."""

from typing import Any, Dict, List, Mapping, Sequence

from . import running, systemd
from .conformance import conformance_checks
from .errors import RackllamaError
from .files import read_json
from .model import records
from .ollama import Ollama
from .report import Check
from .sockets import listeners
from .unit import SERVICES


def service_checks() -> List[Check]:
    """The checks of all services declared on this host; none declared is a failure, not a success."""
    records = [record for path in sorted(SERVICES.glob("*.json")) for record in [read_json(path)] if record]
    if not records:
        return [Check("services", False, "at least one", "none declared", "converge first: playbooks/site.yml")]
    return [check for record in records for check in _checks_of_service(record)]


def model_checks(expected: Sequence[str], url: str, reasoning: Sequence[str] = ()) -> List[Check]:
    """The checks of the models that ought to be served under these names by the Ollama at `url`.

    Those that `reasoning` names as well must think before they answer.
    """
    server = Ollama(url)
    try:
        served = {model.name: model.digest for model in server.models()}
    except RackllamaError as error:
        return [Check("models", False, "an answering engine", error.message, error.remedy)]
    landed = {record["name"]: record for record in records()}
    return [
        check
        for name in expected
        for check in _checks_of_model(name, served, landed.get(name, {}), server, name in reasoning)
    ]


def _checks_of_service(record: Dict[str, Any]) -> List[Check]:
    name = record["name"]
    reasons = running.differences_here(name)
    converge = "converge again: playbooks/site.yml"
    checks = [
        Check(
            f"{name} runs as declared", not reasons, "no difference", "; ".join(reasons) or "no difference", converge
        ),
        _answers(name, record["health"]),
        _sandbox(name, float(record["exposure_limit"])),
    ]
    return checks + [_loopback(name, port) for port in record["ports"]]


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


def _checks_of_model(
    name: str, served: Mapping[str, str], record: Mapping[str, Any], server: Ollama, reasoning: bool
) -> List[Check]:
    remedy = "converge again: playbooks/site.yml"
    found = served.get(name)
    if found is None:
        return [Check(f"{name} is served", False, "in the engine's list", "not there", remedy)]
    identity = Check(
        f"{name} is the one that was landed",
        found == record.get("manifest"),
        f"manifest {str(record.get('manifest', 'of a landing'))[:12]}",
        f"manifest {found[:12]}",
        remedy,
    )
    try:
        weights = server.weights_path(name)
    except RackllamaError as error:
        return [identity, Check(f"{name} answers", False, "an answering engine", error.message, error.remedy)]
    if weights is None:
        return [identity, Check(f"{name} answers", False, "weights in the engine's store", "none", remedy)]
    return [identity, *conformance_checks(name, server, weights, reasoning)]
