"""Open WebUI asked by its API, here a stand-in for it; and the filter that it is given."""

import importlib.util
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.webui.open_webui import (
    FILTER,
    Filter,
    StrangerError,
    Wanted,
    carry_out,
    check_engines,
    filter_source,
    filter_steps,
    found_filter,
    sign_in,
)

SOURCE = Path(__file__).parents[2] / "roles" / "open_webui" / "files" / "open_think_tag.py"
MODEL = "deepseek-r1:ud-iq1_m"


class StandIn:
    """A few paths of Open WebUI's API, with one admin; what is kept here may be changed by a test."""

    def __init__(self):
        self.users, self.signup = {"admin@localhost": ("s3cret", "admin")}, False
        self.engines = [[MODEL]]
        self.gateway = []
        self.functions = {}

    def answer(self, method, path, body, token):
        """Status and document of an answer."""
        if path == "/api/config":
            onboarding = {} if self.users else {"onboarding": True}
            return 200, {"version": "0.12.4", "features": {"enable_signup": self.signup}, **onboarding}
        if path == "/api/v1/auths/signin":
            password, role = self.users.get(body["email"], (None, None))
            return (200, {"token": "t", "role": role}) if password == body["password"] else (400, {"detail": "no"})
        if token != "Bearer t":
            return 401, {"detail": "Not authenticated"}
        if path.startswith("/ollama/api/tags/"):
            models = self.engines[int(path.rpartition("/")[2])]
            found = {"models": [{"model": name} for name in models or ()]}
            return (500, {"detail": "Server Connection Error"}) if models is None else (200, found)
        if path == "/openai/models/0":
            return 200, {"data": [{"id": name} for name in self.gateway]}
        return 200, self.function(method, path, body)

    def function(self, method, path, body):
        if path == "/api/v1/functions/":
            return list(self.functions.values())
        if path == "/api/v1/functions/create":
            self.functions[body["id"]] = {**body, "is_active": False, "is_global": False}
        elif method == "DELETE":
            self.functions.pop(FILTER)
            return True
        found = self.functions[FILTER]
        if path.endswith("/update"):
            found.update(body)
        elif path.endswith("/toggle"):
            found["is_active"] = not found["is_active"]
        elif path.endswith("/toggle/global"):
            found["is_global"] = not found["is_global"]
        return found


@pytest.fixture
def webui():
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, document = stand_in.answer(
                self.command, self.path, json.loads(body or "null"), self.headers["Authorization"]
            )
            sent = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_DELETE = do_POST  # noqa: N815 - as the base class wants it

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    stand_in.wanted = Wanted(
        f"http://127.0.0.1:{server.server_port}", "admin@localhost", "s3cret", ("http://gpu1:11434",), (MODEL,)
    )
    yield stand_in
    server.shutdown()
    server.server_close()


def load_filter(source):
    """The filter as Open WebUI has it: its source, run as a module."""
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("open_think_tag", None))
    exec(compile(source, "open_think_tag", "exec"), module.__dict__)  # noqa: S102 - as Open WebUI does
    return module.Filter()


def chunk(content, role=None, model=MODEL):
    delta = {"content": content, **({"role": role} if role else {})}
    return {"model": model, "choices": [{"index": 0, "delta": delta}]}


def test_one_that_is_as_declared_lists_its_models(webui):
    assert check_engines(sign_in(webui.wanted), webui.wanted) == [MODEL]


def test_models_behind_a_gateway_count_as_well(webui):
    webui.engines, webui.gateway = [], [MODEL]
    wanted = replace(webui.wanted, engines=(), openai_urls=("https://gpu1.example.com/v1",))
    assert check_engines(sign_in(wanted), wanted) == [MODEL]
    webui.gateway = []
    with pytest.raises(RackllamaError, match="but no model at all"):
        check_engines(sign_in(wanted), wanted)


def test_one_without_an_account_is_a_danger_of_its_own_kind(webui):
    webui.users = {}
    with pytest.raises(StrangerError, match="has no account"):
        sign_in(webui.wanted)


def test_sign_up_that_is_open_is_told(webui):
    webui.signup = True
    with pytest.raises(RackllamaError, match="anybody can sign up"):
        sign_in(webui.wanted)


def test_another_version_than_the_declared_one_is_told(webui):
    sign_in(replace(webui.wanted, version="0.12.4"))
    with pytest.raises(RackllamaError, match=r"says that it is 0\.12\.4, and 0\.12\.3 is declared"):
        sign_in(replace(webui.wanted, version="0.12.3"))


@pytest.mark.parametrize(
    ("account", "said"), [(("other", "admin"), "does not let"), (("s3cret", "user"), "is no admin")]
)
def test_an_admin_that_is_not_as_declared_is_told(webui, account, said):
    webui.users = {"admin@localhost": account}
    with pytest.raises(RackllamaError, match=said):
        sign_in(webui.wanted)


def test_an_engine_that_is_not_reached_is_named_with_what_to_try(webui):
    webui.engines = [None]
    with pytest.raises(RackllamaError, match="does not reach the engine at http://gpu1:11434: Server Conn") as caught:
        check_engines(sign_in(webui.wanted), webui.wanted)
    assert "curl http://gpu1:11434/api/version" in caught.value.remedy


def test_a_declared_model_that_is_not_listed_is_named(webui):
    webui.engines = [["other:latest"]]
    with pytest.raises(RackllamaError, match=f"does not list {MODEL}, but other:latest"):
        check_engines(sign_in(webui.wanted), webui.wanted)


def test_the_filter_is_made_switched_on_and_mended_and_goes_when_no_model_needs_it(webui):
    session = sign_in(webui.wanted)
    source = filter_source(SOURCE.read_text(), [MODEL])

    def settle(wanted):
        steps = filter_steps(wanted, found_filter(session))
        carry_out(session, wanted, steps)
        return steps

    assert settle(source) == ["create", "switch on"]
    assert settle(source) == []
    assert found_filter(session) == Filter(source, on=True)
    webui.functions[FILTER]["is_active"] = False
    assert settle(source) == ["switch on"]
    assert settle(filter_source(SOURCE.read_text(), [MODEL, "b"])) == ["update"]
    assert settle(filter_source(SOURCE.read_text(), [])) == ["delete"]
    assert settle("") == []


def test_the_filter_opens_the_thinking_of_its_models_once():
    stream = load_filter(filter_source(SOURCE.read_text(), [MODEL])).stream
    assert stream(chunk("The user", "assistant")) == chunk("<think>\nThe user", "assistant")
    assert stream(chunk(" says </think> hello")) == chunk(" says </think> hello")


@pytest.mark.parametrize(
    "event",
    [
        chunk("Hello", "assistant", model="gemma3-270m:q4_k_m"),
        chunk("<think>Yes", "assistant"),
        {"usage": {"tokens": 1}},
    ],
    ids=["another model", "one that says it", "no piece of text"],
)
def test_the_filter_leaves_alone(event):
    assert load_filter(filter_source(SOURCE.read_text(), [MODEL])).stream(json.loads(json.dumps(event))) == event
