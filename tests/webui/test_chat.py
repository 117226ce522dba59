"""A person at a browser: signs in, chooses the model, sees the answer come; nobody else can sign up."""

import pytest

from rackllama.mirror.lock import in_shard_order, read_lock

from .conftest import ADMIN, PASSWORD

pytestmark = pytest.mark.slow
MODEL = "gemma3-270m:q4_k_m"
THINKER = "gemma3-270m:thinker"
# A stand-in for the template of a reasoning model: it ends the prompt with the tag that opens the thinking.
TEMPLATE = """\
{% raw %}{{- range .Messages }}{{ if eq .Role "user" }}Question: What is the capital of Italy?
Answer: <think> The question is about Italy. </think> Rome is the capital of Italy.

Question: What is the capital of Spain?
Answer: <think> The question is about Spain. </think> Madrid is the capital of Spain.

Question: What is the capital of Japan?
Answer: <think> The question is about Japan. </think> Tokyo is the capital of Japan.

Question: {{ .Content }}
{{ else if eq .Role "assistant" }}Answer: {{ .Content }}
{{ end }}{{ end }}Answer: <think>{% endraw %}"""
SIGN_UP = """
return fetch('/api/v1/auths/signup', {
    method: 'POST', headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({name: 'Stranger', email: 'stranger@example.com', password: 'Str4nger!'}),
}).then(answer => answer.status)"""

FORGET_ACCOUNTS = """
cd /var/lib/open_webui && systemctl stop open_webui && mkdir kept && mv webui.db* kept
sed -i.kept /WEBUI_ADMIN_PASSWORD/d /etc/rackllama/secrets/open_webui.env
systemctl start open_webui
healthy='import urllib.request; urllib.request.urlopen("http://127.0.0.1:8080/health")'
until python3 -c "$healthy" 2>/dev/null; do sleep 1; done"""
REMEMBER_ACCOUNTS = """
cd /var/lib/open_webui && rm -f webui.db* && mv kept/* . && rmdir kept
mv /etc/rackllama/secrets/open_webui.env.kept /etc/rackllama/secrets/open_webui.env"""


def ask(page, model: str, question: str) -> list[str]:
    """Choose a model and ask it; gives each text that was seen of the answer, until it is whole."""
    page.click("#model-selector-model-button")
    page.click(f'[role=option][aria-label="Select {model} model"]')
    page.write("#chat-input", question)
    page.click("#send-message-button")
    seen: list[str] = []

    def whole() -> bool:
        text = page.text(".chat-assistant .markdown-prose")
        if text and text not in seen[-1:]:
            seen.append(text)
        return bool(page.count(".copy-response-button"))

    page.wait(whole, "a whole answer")
    return [*seen, page.text(".chat-assistant")]


def thinker(site) -> dict:
    """The site's model once more, under another name, with the template of the stand-in."""
    files = in_shard_order(read_lock(site.lock)["gemma3-270m-q4-k-m"].files)
    return {
        "name": "gemma3-270m",
        "variant": "thinker",
        "source": files[0].url.rpartition("/")[0],
        "shards": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in files],
        "template": TEMPLATE,
        "parameters": {"temperature": 0, "stop": ["Question:"]},
        "reasoning": True,
    }


def test_a_second_converge_changes_nothing(converged) -> None:
    again = converged.converge()
    assert (again.code, again.changed) == (0, {converged.lab.hosts[0].name: 0})


def test_a_person_signs_in_chooses_the_model_and_sees_the_answer_come(page) -> None:
    seen = ask(page, MODEL, "What is a lighthouse? Explain in detail.")
    assert len(seen) > 3, seen  # it came piece by piece
    assert "lighthouse" in seen[-1]


def test_a_stranger_cannot_sign_up(converged, page) -> None:
    page.run("localStorage.clear(); document.cookie = 'token=; max-age=0'")
    page.open(f"{converged.url}/auth")
    page.wait(lambda: page.count("#password"), "the page to sign in")
    assert "Sign up" not in page.text("body")
    assert page.run(SIGN_UP) == 403


def test_thinking_is_shown_folded_also_where_the_template_has_opened_it(converged, page) -> None:
    models = [{"name": "gemma3-270m", "variant": "q4_k_m"}, thinker(converged)]
    outcome = converged.converge("--tags", "models,webui", rackllama_models=models, gguf_model_tried=False)
    assert outcome.code == 0, outcome.output
    page.open(converged.url)
    page.wait(lambda: page.count("#chat-input"), "the chat page")
    *_, answer = ask(page, THINKER, "What is the capital of France?")
    assert "Paris" in answer
    assert "Thought" in answer  # the head of the folded block, and nothing of what is in it
    assert "The question is about France" not in answer
    assert "think>" not in answer

    functions = converged.session().ask("GET", "/api/v1/functions/")
    assert [function["is_active"] and function["is_global"] for function in functions] == [True]
    back = converged.converge("--tags", "models,webui", gguf_model_remove_undeclared=True)
    assert back.code == 0, back.output
    assert converged.session().ask("GET", "/api/v1/functions/") == []


def test_an_engine_that_is_not_reached_fails_the_converge_with_its_remedy(converged) -> None:
    dead = "http://127.0.0.1:9"
    told = converged.converge("--tags", "webui", open_webui_ollama_urls=[dead])
    words = " ".join(told.output.split())
    assert told.code != 0
    assert f"Open WebUI does not reach the engine at {dead}" in words
    assert f"remedy: ask it from the host: curl {dead}/api/version" in words
    assert converged.converge("--tags", "webui").code == 0


def test_one_without_an_account_is_stopped_before_a_stranger_comes(converged) -> None:
    converged.run(FORGET_ACCOUNTS)  # as after a first start whose admin could not be made
    arguments = {
        "email": ADMIN,
        "password_file": "/etc/rackllama/secrets/open_webui.admin-password",
        "think_filter": "MODELS = ()",
    }
    told = converged.module("rackllama.llm.open_webui", arguments)
    assert "Open WebUI has no account" in told
    assert converged.run("systemctl is-active open_webui || true") == "inactive"
    converged.run(REMEMBER_ACCOUNTS)
    assert converged.converge("--tags", "webui").code == 0


def test_the_password_is_in_no_place_that_others_read(converged) -> None:
    outcome = converged.converge("--tags", "webui")
    assert outcome.code == 0, outcome.output
    assert PASSWORD not in outcome.output
    assert PASSWORD not in converged.run("journalctl --no-pager; ps axww; systemctl cat open_webui")
    # The pattern from its file: sudo writes the command into the journal.
    secrets = "/etc/rackllama/secrets"
    pattern = f"{secrets}/open_webui.admin-password"
    found = converged.run(f"grep -rlFf {pattern} /etc /opt/rackllama /var/lib /var/log /tmp /home /run || true")
    assert sorted(found.splitlines()) == [
        pattern,
        f"{secrets}/open_webui.env",
    ]
    assert converged.run("stat --format='%U %a' /etc/rackllama/secrets/open_webui.*").splitlines() == ["root 600"] * 3
