"""Open WebUI as its own API shows it: whether it is closed to strangers, reaches its engines and lists their models.

Asked on the host itself as the admin that the role declares. A new Open WebUI makes an admin of the first who signs up,
also where sign-up is off: so one without any account is stopped at once.
"""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..errors import RackllamaError
from ..models.chat_markers import THINKING
from ..models.ollama import Ollama

FILTER = "rackllama_open_think_tag"
FILTER_NAME = "Open the thinking tag"
FILTER_DESCRIPTION = "Puts back the <think> that the templates of some models have written into the prompt already."
QUICK_SECONDS = 60
UNAUTHORIZED = (400, 401, 403)


class StrangerError(RackllamaError):
    """Whoever comes first could make himself its admin: it must not be left running."""


@dataclass(frozen=True)
class Wanted:
    """What Open WebUI is to show: an admin, its engines' addresses, and models that it must list at the least.

    `engines` speak Ollama's API and `openai_urls` OpenAI's, each in the order in which Open WebUI was given them.
    `version` is empty where any will do.
    """

    url: str
    email: str
    password: str
    engines: Tuple[str, ...]
    models: Tuple[str, ...]
    openai_urls: Tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True)
class Filter:
    """A function of Open WebUI that is a filter for all models: its source, and whether it is on."""

    source: str
    on: bool


class Session:
    """The API at one address, past every proxy, signed in or not."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, method: str, path: str, body: Optional[Mapping[str, Any]] = None) -> Any:
        """One answer. Raises ApiError where it is none of success, RackllamaError where nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=self._headers)
        try:
            with self._opener.open(request, timeout=QUICK_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ApiError(path, error.code, _detail(error.read())) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RackllamaError(
                f"Open WebUI at {self.url} does not answer {path} ({getattr(error, 'reason', error)})",
                "see: journalctl -u open_webui",
            ) from error


class ApiError(RackllamaError):
    """An answer that is not one of success: its status, and what Open WebUI said."""

    def __init__(self, path: str, status: int, detail: str) -> None:
        super().__init__(f"Open WebUI answered {status} to {path}: {detail}", "see: journalctl -u open_webui")
        self.status = status
        self.detail = detail


def sign_in(wanted: Wanted) -> Session:
    """Sign in as the declared admin, having seen that nobody can sign up.

    Raises StrangerError where the first to come would become admin, RackllamaError where the admin is not as declared.
    """
    public = Session(wanted.url)
    shown = public.ask("GET", "/api/config")
    if shown.get("onboarding"):
        raise StrangerError(
            f"Open WebUI has no account, and could not make the one of {wanted.email}",
            "see why: journalctl -u open_webui; it was stopped, as the first to sign up would become its admin",
        )
    if wanted.version not in ("", shown["version"]):
        # Upgrades and rollbacks of the database are told apart by the declared one.
        raise RackllamaError(
            f"Open WebUI says that it is {shown['version']}, and {wanted.version} is declared",
            "set open_webui_version to what the image has, or take the image of that version",
        )
    if shown["features"]["enable_signup"]:
        raise RackllamaError(
            "anybody can sign up at Open WebUI",
            "see which file opens it: systemctl cat open_webui; where it was done in the Admin Panel, restart it",
        )
    try:
        account = public.ask("POST", "/api/v1/auths/signin", {"email": wanted.email, "password": wanted.password})
    except ApiError as error:
        if error.status not in UNAUTHORIZED:
            raise
        raise RackllamaError(
            f"Open WebUI does not let {wanted.email} sign in with the declared password: {error.detail}",
            "its password was changed in the browser, or it was declared anew: give the present one in"
            " open_webui_admin_password, and make accounts of their own for people",
        ) from error
    if account.get("role") != "admin":
        raise RackllamaError(f"{wanted.email} is no admin of Open WebUI", "make it one again, or declare another")
    return Session(wanted.url, str(account["token"]))


def check_engines(session: Session, wanted: Wanted) -> List[str]:
    """The models that Open WebUI lists, having asked each engine through it.

    Raises RackllamaError naming the engine that it does not reach, or the model that is missing.
    """
    listed: List[str] = []
    for number, engine in enumerate(wanted.engines):
        answer = _ask_engine(session, f"/ollama/api/tags/{number}", engine, f"{engine}/api/version")
        listed += [model["model"] for model in answer["models"]]
    for number, engine in enumerate(wanted.openai_urls):
        answer = _ask_engine(session, f"/openai/models/{number}", engine, f"{engine}/models")
        listed += [model["id"] for model in answer["data"]]
    missing = [model for model in wanted.models if model not in listed]
    if missing:
        raise RackllamaError(
            f"Open WebUI does not list {', '.join(missing)}, but {', '.join(listed) or 'no model at all'}",
            "converge the models first: playbooks/models.yml; or name the engines that have them",
        )
    return listed


def _ask_engine(session: Session, path: str, engine: str, tried: str) -> Any:
    try:
        return session.ask("GET", path)
    except ApiError as error:
        raise RackllamaError(
            f"Open WebUI does not reach the engine at {engine}: {error.detail}",
            f"ask it from the host: curl {tried}; where it answers, see: journalctl -u open_webui",
        ) from error


def dropping_models(reasoning: Iterable[str], engines: Sequence[str]) -> List[str]:
    """Those of the reasoning models whose answers lack the tag that begins their thinking.

    Their template writes it at the end of the prompt, and the engine does not tell thinking apart by itself.
    """
    return [name for name in reasoning for engine in engines if _drops_tag(name, Ollama(engine))]


def _drops_tag(name: str, server: Ollama) -> bool:
    if name not in [model.name for model in server.models()] or "thinking" in server.show(name).get("capabilities", ()):
        return False
    return server.render(name, [{"role": "user", "content": "?"}]).rstrip().endswith(THINKING[0])


def filter_source(template: str, models: Sequence[str]) -> str:
    """The filter's source for these models; empty where none needs it."""
    return template.replace("MODELS = ()", f"MODELS = {tuple(models)!r}") if models else ""


def found_filter(session: Session) -> Optional[Filter]:
    """The filter as it is there, or None."""
    if FILTER not in [function["id"] for function in session.ask("GET", "/api/v1/functions/")]:
        return None
    found = session.ask("GET", f"/api/v1/functions/id/{FILTER}")
    return Filter(found["content"], found["is_active"] and found["is_global"])


def filter_steps(source: str, found: Optional[Filter]) -> List[str]:
    """What to do to the filter: of `create`, `update`, `switch on`, `delete`, in order. Pure."""
    if not source:
        return ["delete"] if found else []
    if found is None:
        return ["create", "switch on"]
    return [
        *(["update"] if found.source != source else []),
        *([] if found.on else ["switch on"]),
    ]


def carry_out(session: Session, source: str, steps: Iterable[str]) -> None:
    """Do the steps."""
    path = f"/api/v1/functions/id/{FILTER}"
    form = {"id": FILTER, "name": FILTER_NAME, "content": source, "meta": {"description": FILTER_DESCRIPTION}}
    for step in steps:
        if step == "create":
            session.ask("POST", "/api/v1/functions/create", form)
        elif step == "update":
            session.ask("POST", f"{path}/update", form)
        elif step == "delete":
            session.ask("DELETE", f"{path}/delete")
        else:
            state: Dict[str, Any] = session.ask("GET", path)
            for key, way in (("is_active", "toggle"), ("is_global", "toggle/global")):
                if not state[key]:
                    session.ask("POST", f"{path}/{way}")


def _detail(body: bytes) -> str:
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]
    return str(detail)
