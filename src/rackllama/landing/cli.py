"""`rackllama land`: shards to one file, or to a model that Ollama serves, every byte written once, on this machine."""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from rackllama.catalog.models import read_catalogue
from rackllama.host.files import as_owner_of
from rackllama.host.lander.http_ranges import HttpSettings
from rackllama.host.lander.landing import Landed, LandingOptions, land
from rackllama.host.lander.progress import MIB, Progress, progress_text
from rackllama.host.lander.shards import HeaderReading, Weights, job_of, land_layout, slug_for, with_version
from rackllama.host.models.model import WantedModel, bring, recorded
from rackllama.host.models.ollama_store import OllamaStore, full_name
from rackllama.host.proxies import require_proxies
from rackllama.host.stop import Stop, StoppedError, stop_on_signals
from rackllama.landing.amounts import byte_count, positive
from rackllama.landing.local_ollama import local_ollama, settings_of
from rackllama.landing.sources import Finder
from rackllama.mirror.http import tokens_from
from rackllama.mirror.lock import default_lock_path, read_lock
from rackllama.paths import state_dir

EXIT_STOPPED = 130
LOG_SECONDS = 20.0
Result = tuple[dict[str, Any], str]


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command that lands a model."""
    parser = commands.add_parser(
        "land",
        help="fetch the shards of a model as one file, or into Ollama",
        description="Fetch the shards of a GGUF model and put them together as one file, every byte written once; with "
        "--ollama, let the Ollama of this machine serve it, as the catalogue says where it knows the model. "
        "What was interrupted goes on where it was when the same command is given again.",
        epilog="Exit codes: 0 landed, 2 it cannot be done, 130 stopped. Tokens: HF_TOKEN and MODELSCOPE_API_TOKEN for "
        "gated models, AWS_ACCESS_KEY_ID and so on for S3.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a model of the lock, SLUG or NAME:VARIANT; hf:OWNER/REPO[@REVISION]:QUANT or …/FILE.gguf; ms: likewise "
        "of ModelScope; ollama:NAME:TAG; s3://BUCKET/KEY, http(s) address or path of a shard or single file; a folder",
    )
    becomes = parser.add_mutually_exclusive_group(required=True)
    becomes.add_argument("--out", type=Path, metavar="FILE", help="the file to make")
    becomes.add_argument("--ollama", metavar="NAME", help="the name to have it served under by this machine's Ollama")
    parser.add_argument("--models-dir", type=Path, metavar="DIR", help="where that Ollama keeps models")
    parser.add_argument(
        "--untried", action="store_true", help="with --ollama: do not ask the model whether its template is its own"
    )
    parser.add_argument("--drop-split-keys", action="store_true", help="make the file as it was before it was split")
    parser.add_argument("--mirror", default="", metavar="URL", help="fetch https://HOST/PATH from URL/HOST/PATH first")
    parser.add_argument(
        "--rate-limit", type=byte_count, metavar="BYTES", help="take at most so many bytes a second: 200M, 200MiB"
    )
    parser.add_argument(
        "--reserve",
        type=byte_count,
        default=LandingOptions.reserve_bytes,
        metavar="BYTES",
        help="leave so many bytes of the disk free: 20G, 20GiB; default: 1GiB",
    )
    parser.add_argument(
        "--connections", type=positive, default=LandingOptions.connections, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--lock", type=Path, metavar="PATH", help="default: artefacts.lock of the checkout")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run_land)


def _run_land(arguments: argparse.Namespace) -> int:
    require_proxies(os.environ)
    tokens = {urlsplit(site).netloc: token for site, token in tokens_from(os.environ).items()}
    find = Finder(lambda: read_lock(arguments.lock or default_lock_path()), os.environ, arguments.mirror)
    model = find(arguments.source)
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    whole = arguments.drop_split_keys
    weights = Weights(model.shards, whole, None if whole else model.merged_sha256)
    options = LandingOptions(
        reserve_bytes=arguments.reserve,
        connections=arguments.connections,
        rate_limit=arguments.rate_limit,
        tokens=tokens,
    )
    line = ProgressLine(sys.stderr, arguments.ollama or arguments.out.name)
    with stop_on_signals(signal.SIGINT, signal.SIGTERM) as stop:
        try:
            if arguments.ollama:
                result, words = _into_ollama(arguments, weights, options, line, stop)
            else:
                result, words = _to_file(arguments.out, weights, options, line, stop)
        except StoppedError:
            line.close()
            print("stopped; what came is kept. To go on, give the same command again.", file=sys.stderr)
            return EXIT_STOPPED
        finally:
            line.close()
    print(json.dumps(result) if arguments.json else words)
    return 0


def _to_file(out: Path, weights: Weights, options: LandingOptions, line: "ProgressLine", stop: Stop) -> Result:
    """Land one file; gives the result as data and in words."""
    destination = out.parent.resolve() / out.name
    reading = HeaderReading(HttpSettings(options.tokens, floor=options.floor), stop=stop)
    job, landed = land_layout(
        lambda reading: job_of(weights, destination, reading),
        lambda job: land(job, state_dir() / "land", options, line, stop),
        reading,
    )
    return {"file": str(destination), "size": job.size, **asdict(landed)}, told(landed, destination, job.size)


def _into_ollama(
    arguments: argparse.Namespace, weights: Weights, options: LandingOptions, line: "ProgressLine", stop: Stop
) -> Result:
    """Land a model and have it served; gives the result as data and in words."""
    local = local_ollama(os.environ, arguments.models_dir)
    settings, reasoning = settings_of(arguments.source, read_catalogue())
    store = OllamaStore(local.models_dir)
    with as_owner_of(store.root):
        versions = HttpSettings(options.tokens)
        wanted = WantedModel(
            slug_for(store.root / full_name(arguments.ollama).replace("/", "-").replace(":", "-")),
            arguments.ollama,
            replace(weights, shards=tuple(with_version(shard, versions) for shard in weights.shards)),
            settings,
            store.root,
            local.url,
            reasoning,
            not arguments.untried,
        )
        steps = bring(wanted, options, line, stop, store.landing / "state")
        landed = recorded(wanted.slug, store.landing / "state")["weights"]
    blob = store.blob(landed["blob"])
    result = {"model": wanted.name, "file": str(blob), "steps": steps, **landed}
    done = ", ".join(steps) or "nothing to do"
    return result, f"{wanted.name} at {local.url}: {done}\n{blob}: {landed['size']} bytes ({proof(landed['verified'])})"


def told(landed: Landed, destination: Path, size: int) -> str:
    """The result in words."""
    cost = f"fetched {landed.bytes_fetched / MIB:.1f} MiB and wrote {landed.bytes_written / MIB:.1f} MiB"
    done = f"{cost} in {landed.seconds:.1f} s" if landed.bytes_written else "landed before"
    return f"{destination}: {size} bytes, {done}\nsha256 {landed.sha256} ({proof(landed.verified)})"


def proof(verified: bool) -> str:
    """What vouches for landed bytes, in words."""
    return "verified" if verified else "unverified: no published sha256 of it is known"


class ProgressLine:
    """Shows how far a landing is: on a terminal one line kept up to date, elsewhere a line every 20 seconds."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._on_terminal = stream.isatty()
        self._shown_at = time.monotonic()
        self._open = False

    def __call__(self, progress: Progress) -> None:
        """Show it, where it is time to."""
        now = time.monotonic()
        if self._on_terminal:
            self._write(f"\r\033[K{progress_text(progress, self._name)}")
            self._open = True
        elif now - self._shown_at >= LOG_SECONDS:
            self._write(f"{progress_text(progress, self._name)}\n")
            self._shown_at = now

    def close(self) -> None:
        """Leave the last line as it is, and begin a new one."""
        if self._open:
            self._write("\n")
            self._open = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
