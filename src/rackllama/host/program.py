"""The program that outlives a connection: `rackllama-host.pyz`, run by units and by people on the serving host.

land JOB.json     bring the model of a job to where it is served, going on from what an earlier run left
status            how far each model's landing is
scrub STORE       read every blob below an OLLAMA_MODELS, and name the damaged ones
key …             create, list and revoke the keys of the gateway on this host
certificate FILE  give a service the certificate and key that the file names, if they have changed
models-volume     make the volume for models ready to be mounted, at boot
describe          tell this host's GPUs, memory, disks and network as JSON
webui-data DIR    keep or bring back the database of Open WebUI, before the release that is current is started
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from .errors import RackllamaError
from .files import read_json
from .gateway import gateway_program
from .hardware.description import describe
from .lander.landing import LandingOptions, read_token
from .lander.progress import Progress, progress_text, read_progress
from .models.model import LANDINGS, PROGRESS, bring, wanted_model
from .models.scrub import blob_checks
from .proxies import require_proxies
from .stop import StoppedError, stop_on_signals
from .storage import volume
from .webui.webui_data import make_ready

EXIT_OK, EXIT_FAILED, EXIT_CANNOT, EXIT_STOPPED = 0, 1, 2, 130
LOG_SECONDS = 20.0
TOKENS = {"huggingface.co": "HF_TOKEN"}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; gives its exit code: 0, 1 where a check failed, 2 where it cannot be done, 130 stopped."""
    parser = argparse.ArgumentParser(prog="rackllama-host", description="rackllama on the serving host")
    commands = parser.add_subparsers(dest="command", required=True)
    land = commands.add_parser("land", help="bring a model to where it is served")
    land.add_argument("job", type=Path, help="/etc/rackllama/models/SLUG.json")
    commands.add_parser("status", help="how far each landing is")
    scrub = commands.add_parser("scrub", help="read every blob of a store, and name the damaged ones")
    scrub.add_argument("store", type=Path, help="the folder that OLLAMA_MODELS names")
    gateway_program.add_commands(commands)
    commands.add_parser("describe", help="tell this host's GPUs, memory, disks and network as JSON")
    commands.add_parser("models-volume", help="make the volume for models ready to be mounted, at boot")
    webui = commands.add_parser("webui-data", help="make Open WebUI's database ready for the release that is current")
    webui.add_argument("data", type=Path, help="its DATA_DIR")
    webui.add_argument("current", type=Path, help="the link to the release that is to be started")
    arguments = parser.parse_args(argv)
    runs: Dict[str, Callable[[], int]] = {
        "land": lambda: _land(arguments.job),
        "status": _status,
        "scrub": lambda: _scrub(arguments.store),
        "key": lambda: gateway_program.run_key(arguments),
        "certificate": lambda: gateway_program.run_certificate(arguments),
        "describe": _describe,
        "models-volume": _models_volume,
        "webui-data": lambda: _webui_data(arguments.data, arguments.current),
    }
    try:
        return runs[arguments.command]()
    except StoppedError as stopped:
        print(stopped.message, file=sys.stderr)
        return EXIT_STOPPED
    except RackllamaError as error:
        print(f"{error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return EXIT_CANNOT


def tokens_from(environment: Mapping[str, str]) -> Dict[str, str]:
    """The bearer tokens that the environment holds, by the host that each is for."""
    found = {host: read_token(environment, variable) for host, variable in TOKENS.items()}
    return {host: token for host, token in found.items() if token}


def _land(path: Path) -> int:
    os.umask(0o022)  # progress and records are for everybody to read
    require_proxies(os.environ)
    job = read_json(path)
    if not isinstance(job, dict):
        raise RackllamaError(f"{path} is no landing job", "converge again: playbooks/site.yml")
    wanted = wanted_model(job)
    if wanted.store.is_dir() and wanted.store.stat().st_uid != os.geteuid():
        # What root would leave behind, the user of the unit could not take up again.
        start = f"start the unit instead: systemctl start rackllama-land@{path.stem}"
        raise RackllamaError(f"{wanted.store} belongs to another user", start)
    options = LandingOptions(
        reserve_bytes=int(job["reserve_gib"] * 2**30),
        connections=job["connections"],
        rate_limit=job["rate_limit_mib_per_second"] * 2**20 or None,
        tokens=tokens_from(os.environ),
    )
    with stop_on_signals(signal.SIGTERM, signal.SIGINT) as stop:
        steps = bring(wanted, options, _Log(job["name"]), stop)
    print(f"{job['name']}: {', '.join(steps) or 'nothing to do'}", flush=True)
    return EXIT_OK


def _status() -> int:
    for path in sorted(LANDINGS.glob(f"*/{PROGRESS}")):
        progress = read_progress(path)
        if progress:
            print(progress_text(progress, path.parent.name))
            if progress.error:
                print(f"  {progress.error}\n  remedy: {progress.remedy}")
    return EXIT_OK


def _scrub(store: Path) -> int:
    damaged: List[str] = []
    for check in blob_checks(store):
        print(json.dumps({"id": check.id, "ok": check.ok, "found": check.found, "remedy": check.remedy}), flush=True)
        damaged += [] if check.ok else [check.id]
    return EXIT_FAILED if damaged else EXIT_OK


def _describe() -> int:
    print(json.dumps(describe()), flush=True)
    return EXIT_OK


def _models_volume() -> int:
    os.umask(0o022)
    for words in volume.make_ready():
        print(words, flush=True)
    return EXIT_OK


def _webui_data(data: Path, current: Path) -> int:
    for step in make_ready(data, current.resolve().name):
        print(f"{step.action} the database of {step.release}", flush=True)
    return EXIT_OK


class _Log:
    """Lines for the journal: each new phase, and every 20 seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._phase = ""
        self._at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase != self._phase or now - self._at >= LOG_SECONDS:
            self._phase, self._at = progress.phase, now
            print(progress_text(progress, self._name), flush=True)
