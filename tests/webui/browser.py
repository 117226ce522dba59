"""A real browser, headless, driven over WebDriver: Chromium as Debian packages it, with no library in between."""

import base64
import json
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element, as the standard has it
ENTER = "\ue007"
PATIENCE_SECONDS = 60
STARTED = re.compile(r"started successfully on port (\d+)")


@dataclass(frozen=True)
class Browser:
    """One window. Elements are named by CSS selectors, and waited for until they are there."""

    session: str

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def click(self, selector: str) -> None:
        """Click the first that can be clicked."""
        self.wait(lambda: self._clicked(selector), f"a click on {selector}")

    def write(self, selector: str, text: str) -> None:
        self.wait(lambda: self.count(selector), f"{selector} to write into")
        self._ask("POST", f"/element/{self._find(selector)[0]}/value", {"text": text})

    def text(self, selector: str) -> str:
        """The text of all that it names, as it is seen."""
        return "\n".join(self._ask("GET", f"/element/{element}/text") for element in self._find(selector))

    def count(self, selector: str) -> int:
        return len(self._find(selector))

    def run(self, script: str) -> Any:
        """What a piece of JavaScript returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def close(self) -> None:
        self._ask("DELETE", "")

    def _find(self, selector: str) -> list[str]:
        found = self._ask("POST", "/elements", {"using": "css selector", "value": selector})
        return [element[ELEMENT] for element in found]

    def _clicked(self, selector: str) -> bool:
        for element in self._find(selector):
            try:
                self._ask("POST", f"/element/{element}/click", {})
            except NotNowError:
                continue
            return True
        return False

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return ask(method, self.session + path, body)


class NotNowError(Exception):
    """What the driver refuses for now: an element that is hidden, covered or gone."""


def ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """One command of the driver."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise NotNowError(json.load(error)["value"]["message"]) from error


@contextmanager
def browser(width: int = 1280, height: int = 800, flags: Sequence[str] = ()) -> Iterator[Browser]:
    """A browser with a profile of its own, gone with all that it kept at the end, and further flags of Chromium."""
    with tempfile.TemporaryDirectory() as profile, chromedriver() as driver:
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server"),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", "--lang=en"),
            *flags,
        ]
        options = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}}
        session = ask("POST", f"{driver}/session", {"capabilities": options})["sessionId"]
        window = Browser(f"{driver}/session/{session}")
        try:
            yield window
        finally:
            window.close()


@contextmanager
def chromedriver() -> Iterator[str]:
    """The driver's address, on a port that the kernel chose."""
    with subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            started = next(found for line in driver.stdout or () if (found := STARTED.search(line)))
            yield f"http://127.0.0.1:{started[1]}"
        finally:
            driver.terminate()
