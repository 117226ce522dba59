"""The wall clock may jump to and fro under a landing: only what people read is told in its time."""

import itertools
import json
import time
from dataclasses import replace

from rackllama.host.lander.landing import land

from .hub import Answer, first
from .model import FAST, sha256

YEAR_SECONDS = 365 * 86400.0


def test_a_clock_that_jumps_changes_nothing(model, hub, tmp_path, monkeypatch):
    now = time.time()
    jumps = itertools.cycle([now, now - 30 * YEAR_SECONDS, now + 30 * YEAR_SECONDS])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    hub.fault = first(3, Answer(503))
    job = model.job(tmp_path, hub.url)
    landed = land(job, tmp_path / "state", replace(FAST, patience_seconds=60))
    assert landed.sha256 == sha256(job.destination.read_bytes()) == sha256(model.merged)
    progress = json.loads((tmp_path / "state" / job.slug / "progress.json").read_text())
    assert (progress["phase"], progress["bytes"]) == ("landed", job.size)
