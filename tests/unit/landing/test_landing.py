"""What a landing does when all goes well, or was told to."""

import json
import threading
from dataclasses import asdict, replace

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import landing, schedule
from rackllama.host.lander.landing import land, read_token
from rackllama.host.lander.landing_job import landing_job
from rackllama.host.stop import StoppedError

from .hub import Answer, first
from .model import FAST, make_model, sha256


def test_shards_become_one_file_with_every_byte_fetched_and_written_once(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url)
    landed = land(job, tmp_path / "state", FAST)
    assert job.destination.read_bytes() == model.merged
    assert (landed.sha256, landed.verified) == (sha256(model.merged), True)
    assert landed.bytes_fetched == hub.bytes_sent == sum(map(len, model.shards.values()))
    assert landed.bytes_written < 1.01 * len(model.merged)
    assert [path.name for path in tmp_path.glob("*.part")] == []
    assert sorted(path.name for path in (tmp_path / "state/tiny-1b").glob("*.journal")) == []


def test_connections_are_kept_alive(model, hub, tmp_path):
    land(model.job(tmp_path, hub.url), tmp_path / "state", replace(FAST, connections=1))
    assert len({request.connection for request in hub.requests}) == 1
    assert len(hub.requests) >= 3


def test_a_known_digest_of_the_whole_is_proved_by_the_shards(model, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(landing.Pipeline, "_digest_merged", None)
    job = model.job(tmp_path, hub.url, merged=True)
    assert land(job, tmp_path / "state", FAST).sha256 == sha256(model.merged)
    assert job.destination.read_bytes() == model.merged


@pytest.mark.parametrize("merged", [True, False])
def test_fetching_waits_for_digests_that_are_far_behind(model, hub, tmp_path, monkeypatch, merged):
    monkeypatch.setattr(schedule, "MOST_AHEAD_BYTES", 0)
    hub.fault = first(5, Answer(500))  # what comes late must not be waited for in vain
    job = model.job(tmp_path, hub.url, merged=merged)
    assert land(job, tmp_path / "state", FAST).sha256 == sha256(model.merged)


def test_a_header_of_other_shards_is_told(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url, merged=True)
    wrong = replace(job.shards[0], header_sha256=sha256(b"another header"))
    with pytest.raises(RackllamaError, match="not computed from the header of tiny-00001"):
        land(replace(job, shards=(wrong, *job.shards[1:])), tmp_path / "state", FAST)
    assert not job.destination.exists()


def test_without_published_digests_the_file_is_landed_as_unverified(model, hub, tmp_path):
    landed = land(model.job(tmp_path, hub.url, sha256s=False), tmp_path / "state", FAST)
    assert (landed.sha256, landed.verified) == (sha256(model.merged), False)
    # nobody asked for what is neither stored nor checked
    assert landed.bytes_fetched == sum(place.length for place in model.placements.values())


def test_a_wrong_digest_of_the_whole_is_found_without_digests_of_shards(model, hub, tmp_path):
    job = replace(model.job(tmp_path, hub.url, sha256s=False), sha256=sha256(b"another file"))
    with pytest.raises(RackllamaError, match="is wanted"):
        land(job, tmp_path / "state", FAST)
    assert not job.destination.exists()


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_shards_come_from_a_directory(model, tmp_path, form):
    shards = tmp_path / "shards with spaces"
    shards.mkdir()
    for name, data in model.shards.items():
        (shards / name).write_bytes(data)
    job = model.job(tmp_path, "unused")
    source = form.format(str(shards).replace(" ", "%20") if form.startswith("file") else shards)
    job = replace(job, shards=tuple(replace(shard, sources=(source,)) for shard in job.shards))
    assert land(job, tmp_path / "state", FAST).verified
    assert job.destination.read_bytes() == model.merged


def test_a_whole_file_is_one_shard(hub, tmp_path):
    single = make_model(100_000)
    [(name, data)] = single.shards.items()
    hub.files[f"/{name}"] = data
    place = replace(single.placements[name], source_offset=0, length=len(data), destination_offset=0)
    job = single.job(tmp_path, hub.url, merged=False)
    job = replace(job, size=len(data), header=b"", shards=(replace(job.shards[0], placement=place),))
    assert land(job, tmp_path / "state", FAST).sha256 == sha256(data)
    assert job.destination.read_bytes() == data


def test_a_shard_without_weights_is_checked_and_not_stored(hub, tmp_path):
    model = make_model(0, 50_000)
    hub.files = {f"/{name}": data for name, data in model.shards.items()}
    job = model.job(tmp_path, hub.url)
    assert land(job, tmp_path / "state", FAST).verified
    assert job.destination.read_bytes()[-50_000 - 24 : -24] == model.merged[-50_000 - 24 : -24]


def test_what_was_landed_is_neither_fetched_nor_read_again(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url)
    before = land(job, tmp_path / "state", FAST)
    asked = len(hub.requests)
    job.destination.chmod(0)
    again = land(job, tmp_path / "state", FAST)
    assert (again.sha256, again.verified, again.bytes_fetched) == (before.sha256, True, 0)
    assert len(hub.requests) == asked


def test_a_file_of_somebody_elses_is_left_alone(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url)
    job.destination.write_text("mine")
    with pytest.raises(RackllamaError, match="exists already"):
        land(job, tmp_path / "state", FAST)
    assert job.destination.read_text() == "mine"


def test_progress_is_there_for_anybody(model, hub, tmp_path):
    seen = []
    land(model.job(tmp_path, hub.url), tmp_path / "state", FAST, seen.append)
    path = tmp_path / "state/tiny-1b/progress.json"
    document = json.loads(path.read_text())
    assert (document["phase"], document["bytes"], document["total"]) == ("landed", len(model.merged), len(model.merged))
    assert path.stat().st_mode & 0o444 == 0o444
    assert seen[-1].phase == "landed"


def test_stopped_in_the_middle_it_goes_on_from_there(model, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(landing, "TICK_SECONDS", 0.02)
    stop, stopped = threading.Event(), threading.Event()
    last_shard = f"/{list(model.shards)[-1]}"

    def hold_the_last_shard(request):
        if request.path == last_shard:
            stop.set()
            stopped.wait(10)

    hub.fault = hold_the_last_shard
    job = model.job(tmp_path, hub.url)
    with pytest.raises(StoppedError, match="was stopped"):
        land(job, tmp_path / "state", replace(FAST, connections=1), stop=stop)
    stopped.set()
    assert not job.destination.exists()
    assert json.loads((tmp_path / "state/tiny-1b/progress.json").read_text())["phase"] == "stopped"
    landed = land(job, tmp_path / "state", FAST)
    assert landed.sha256 == sha256(model.merged)
    assert landed.bytes_fetched < 20_000  # the last shard, and the headers of the others


def test_a_rate_limit_is_kept(hub, tmp_path):
    model = make_model(400_000)
    hub.files = {f"/{name}": data for name, data in model.shards.items()}
    landed = land(model.job(tmp_path, hub.url), tmp_path / "state", replace(FAST, rate_limit=1e6))
    assert 0.35 < landed.seconds < 5


def test_two_landers_do_not_meet(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url)
    refused = []

    def land_again(progress):
        if not refused and progress.phase != "landed":
            with pytest.raises(RackllamaError, match="is being landed already, by process") as failure:
                land(job, tmp_path / "state", FAST)
            refused.append(failure.value)

    land(job, tmp_path / "state", FAST, land_again)
    assert refused


def test_what_another_job_left_unfinished_is_removed(model, hub, tmp_path):
    old = replace(model.job(tmp_path, hub.url), sha256=sha256(b"never"), size=len(model.merged) + 1)
    hub.fault = lambda _: Answer(404)
    with pytest.raises(RackllamaError):
        land(old, tmp_path / "state", FAST)
    assert len(list(tmp_path.glob("*.part"))) == 1
    hub.fault = lambda _: None
    land(model.job(tmp_path, hub.url), tmp_path / "state", FAST)
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"slug": "../x"}, "is no slug"),
        ({"slug": "Upper"}, "is no slug"),
        ({"destination": "relative.gguf"}, "no plain absolute path"),
        ({"destination": "/srv/../etc/passwd"}, "no plain absolute path"),
        ({"destination": "/srv/a\0b"}, "no plain file name"),
        ({"sha256": "a" * 63}, "is no sha256"),
        ({"size": 10}, "overlap, or do not fit"),
        ({"size": 1 << 40}, "bytes of it open"),
        ({"shards": ()}, "has no shard"),
    ],
)
def test_a_job_that_leads_elsewhere_is_refused(model, hub, tmp_path, change, told):
    if "destination" in change:
        change = {"destination": type(tmp_path)(change["destination"])}
    with pytest.raises(RackllamaError, match=told):
        land(replace(model.job(tmp_path, hub.url), **change), tmp_path / "state", FAST)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "../evil.gguf"}, "no plain file name"),
        ({"name": "/evil.gguf"}, "no plain file name"),
        ({"name": "a\0.gguf"}, "no plain file name"),
        ({"sources": ()}, "has no source"),
        ({"sources": ("https://me:secret@hub/x",)}, "has a password"),
        ({"sources": ("ftp://hub/x",)}, "unknown kind"),
        ({"size": 5}, "others were to be taken"),
    ],
)
def test_a_shard_that_leads_elsewhere_is_refused(model, hub, tmp_path, change, told):
    job = model.job(tmp_path, hub.url)
    with pytest.raises(RackllamaError, match=told) as failure:
        land(replace(job, shards=(replace(job.shards[0], **change), *job.shards[1:])), tmp_path / "state", FAST)
    assert "secret" not in str(failure.value)
    assert hub.requests == []


def test_a_job_comes_as_plain_data(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url, merged=True)
    given = json.loads(json.dumps(asdict(replace(job, header=b"")), default=str))
    assert landing_job(given, model.header) == job
    with pytest.raises(RackllamaError, match="no landing job"):
        landing_job({**given, "shards": [{"name": "x"}]}, model.header)


def test_a_link_in_the_place_of_the_part_file_is_not_followed(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f"{job.slug}.{job.identity}.part").symlink_to(victim)
    with pytest.raises(RackllamaError, match="is a link"):
        land(job, tmp_path / "state", FAST)
    assert victim.read_text() == "precious"


def test_too_small_a_disk_is_told_before_the_first_byte(model, hub, tmp_path):
    with pytest.raises(RackllamaError, match="GiB are needed"):
        land(model.job(tmp_path, hub.url), tmp_path / "state", replace(FAST, reserve_bytes=1 << 60))
    assert hub.requests == []
    assert list(tmp_path.glob("*.part")) == []


def test_a_staging_directory_elsewhere_is_refused(model, hub, tmp_path):
    elsewhere = type(tmp_path)("/proc/self")
    with pytest.raises(RackllamaError, match=r"cannot be written to|not on the file system"):
        land(model.job(tmp_path, hub.url), tmp_path / "state", replace(FAST, staging=elsewhere))
    assert hub.requests == []


def test_a_file_system_that_cannot_preallocate_is_fine(model, hub, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(landing.os, "posix_fallocate", refuse)
    job = model.job(tmp_path, hub.url)
    land(job, tmp_path / "state", FAST)
    assert job.destination.read_bytes() == model.merged


def test_a_token_comes_from_the_environment_or_a_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("from-file\n")
    assert read_token({"HF_TOKEN": "from-environment"}, "HF_TOKEN", path) == "from-environment"
    assert read_token({}, "HF_TOKEN", path) == "from-file"
    assert read_token({}, "HF_TOKEN") is None
    path.write_text("two words")
    with pytest.raises(RackllamaError, match="is none"):
        read_token({}, "HF_TOKEN", path)
    assert "hf_secret" not in repr(replace(FAST, tokens={"hub": "hf_secret"}))
