"""A small client of Ollama's own API, over loopback or through a gateway, and past every proxy."""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ..errors import RackllamaError

QUICK_SECONDS = 30


@dataclass(frozen=True)
class ListedModel:
    """One model as `/api/tags` lists it; `digest` is that of its manifest."""

    name: str
    digest: str


@dataclass(frozen=True)
class Chat:
    """One answer and how fast it came: `tokens` were decoded in `decode_seconds`.

    `thinking` is what the server took for such and told apart. `done_reason` is "stop", or "length" at `num_predict`,
    and empty where the server broke the answer off, as it does where a model says the same token over and over.
    """

    text: str
    tokens: int
    decode_seconds: float
    thinking: str = ""
    done_reason: str = ""

    @property
    def tokens_per_second(self) -> float:
        """The decode rate."""
        return self.tokens / self.decode_seconds if self.decode_seconds else 0.0


class Ollama:
    """The server at one address, as `http://127.0.0.1:11434`. Every method raises RackllamaError where it fails.

    A gateway wants `headers` with a key, and is believed by whom `trust` believes.
    """

    def __init__(
        self, url: str, headers: Optional[Mapping[str, str]] = None, trust: Optional[ssl.SSLContext] = None
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = dict(headers or {})
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )

    def models(self) -> List[ListedModel]:
        """All models that the server has."""
        answer = self._ask("GET", "/api/tags")
        try:
            return [ListedModel(entry["name"], entry["digest"]) for entry in answer["models"]]
        except (KeyError, TypeError) as error:
            raise self._not_ollama() from error

    def show(self, name: str) -> Dict[str, Any]:
        """What the server knows of a model: its modelfile, template, parameters, details."""
        shown: Dict[str, Any] = self._ask("POST", "/api/show", {"model": name})
        return shown

    def loaded(self) -> List[Dict[str, Any]]:
        """The models in memory: name, size, size_vram, context_length …"""
        answer = self._ask("GET", "/api/ps")
        try:
            return [dict(entry) for entry in answer["models"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_ollama() from error

    def unload(self, name: str) -> None:
        """Let the server take a model out of memory, where it has it there."""
        self._ask("POST", "/api/generate", {"model": name, "keep_alive": 0, "stream": False})

    def delete(self, name: str) -> None:
        """Remove a model, and the blobs that no other one has."""
        with self._open("DELETE", "/api/delete", {"model": name}, QUICK_SECONDS):
            pass

    def create(self, name: str, given: Mapping[str, Any]) -> None:
        """Create or replace a model `from` another, with template, parameters, system and licence."""
        last: Dict[str, Any] = {}
        for last in self._stream("/api/create", {"model": name, **given}):
            if "error" in last:
                break
        if last.get("status") != "success":
            raise RackllamaError(
                f"Ollama could not create {name}: {last.get('error', 'its answer broke off')}",
                "see its journal: journalctl -u ollama",
            )

    def chat(self, name: str, question: str, options: Optional[Mapping[str, Any]] = None) -> Chat:
        """Ask one question and wait for the whole answer, however long the model takes to load."""
        body = {
            "model": name,
            "messages": [{"role": "user", "content": question}],
            "options": dict(options or {}),
        }
        text, thinking, last = "", "", {}
        for last in self._stream("/api/chat", body):
            if "error" in last:
                raise RackllamaError(f"{name} did not answer: {last['error']}", "see the journal: journalctl -u ollama")
            text += last.get("message", {}).get("content", "")
            thinking += last.get("message", {}).get("thinking", "")
        return Chat(  # zeros are left out
            text, last.get("eval_count", 0), last.get("eval_duration", 0) / 1e9, thinking, last.get("done_reason", "")
        )

    def render(self, name: str, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that these messages (`role`, `content`) become; loads the model, and generates nothing."""
        return self._rendered("/api/chat", {"model": name, "messages": list(messages)})

    def render_with(self, name: str, template: str, question: str) -> str:
        """The prompt that one question becomes by another template, in Go's language, than the model's own."""
        return self._rendered("/api/generate", {"model": name, "prompt": question, "template": template})

    def _rendered(self, path: str, body: Mapping[str, Any]) -> str:
        for answer in self._stream(path, {**body, "_debug_render_only": True}):
            if "_debug_info" in answer:
                return str(answer["_debug_info"]["rendered_template"])
        raise RackllamaError(f"Ollama rendered no prompt for {body['model']}", "update Ollama: role ollama")

    def _ask(self, method: str, path: str, body: Optional[Mapping[str, Any]] = None) -> Any:
        with self._open(method, path, body, QUICK_SECONDS) as answer:
            try:
                return json.load(answer)
            except ValueError as error:
                raise self._not_ollama() from error

    def _stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Dict[str, Any]]:
        """The lines of a streamed answer. No time-out: loading and importing take as long as the model is large."""
        with self._open("POST", path, body, None) as answer:
            try:
                for line in answer:
                    yield json.loads(line)
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
            except ValueError as error:
                raise self._not_ollama() from error

    def _open(self, method: str, path: str, body: Optional[Mapping[str, Any]], timeout: Optional[float]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json", **self._headers}
        )
        try:
            return self._opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace").strip()
            raise RackllamaError(
                f"Ollama answered {error.code} to {path}: {said}", "see its journal: journalctl -u ollama"
            ) from error
        except OSError as error:
            raise self._unreachable(error) from error

    def _not_ollama(self) -> RackllamaError:
        return RackllamaError(f"what answers at {self.url} is not Ollama", "see who listens there: ss -tlnp")

    def _unreachable(self, error: Exception) -> RackllamaError:
        return RackllamaError(
            f"Ollama at {self.url} does not answer ({getattr(error, 'reason', error)})", "see: systemctl status ollama"
        )
