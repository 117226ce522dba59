"""What sources do wrong, and what becomes of it."""

import email.utils
from dataclasses import replace

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.landing import land
from rackllama.host.lander.sources import SourceError, Sources

from .hub import Answer, first
from .model import FAST, sha256

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 5\n"


def is_landed(model, job, tmp_path, options=FAST):
    landed = land(job, tmp_path / "state", options)
    assert landed.sha256 == sha256(model.merged)
    return landed.verified and job.destination.read_bytes() == model.merged


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        Answer(503, {"Retry-After": "0"}),
        Answer(429, {"Retry-After": email.utils.formatdate(0, usegmt=True)}),
        Answer(cut_after=100_000),
        Answer(cut_after=0),
        Answer(shift=1),
        Answer(206, {}, b"no range told"),
        Answer(206, {"Content-Range": "bytes */*"}, b"x"),
        Answer(416),
    ],
    ids=["500", "503", "429", "cut", "empty", "shifted", "untold", "odd", "416"],
)
def test_a_passing_fault_is_waited_out(model, hub, tmp_path, answer):
    hub.fault = first(6, answer)
    assert is_landed(model, model.job(tmp_path, hub.url), tmp_path)


def test_another_range_than_was_asked_for_is_not_read(model, hub, tmp_path):
    hub.fault = first(6, Answer(shift=1))
    landed = land(model.job(tmp_path, hub.url), tmp_path / "state", FAST)
    assert landed.bytes_fetched == sum(map(len, model.shards.values()))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(404), "answered 404"),
        (Answer(403), "answered 403 .* token"),
        (Answer(302, {"Location": "ftp://elsewhere/x"}), "redirects from http to ftp"),
        (Answer(302, {"Location": "/a"}), "redirects without end"),
        (Answer(200, {}, LFS_POINTER), "serves the Git LFS pointer in place of the weights"),
        (Answer(200, {}, b"<!DOCTYPE html><title>Log in</title>"), "a web page, and"),
        (Answer(headers={"Content-Encoding": "gzip"}), "is sent compressed"),
        (Answer(302, {"Location": "/a", "X-Linked-ETag": f'"{"b" * 64}"'}), "is another file now"),
    ],
)
def test_what_another_try_does_not_change_is_told_at_once(model, hub, tmp_path, answer, told):
    hub.fault = lambda _: answer
    with pytest.raises(RackllamaError, match=told):
        land(model.job(tmp_path, hub.url), tmp_path / "state", replace(FAST, patience_seconds=1000))


def test_a_pointer_is_recognised_by_a_range_behind_its_end(model, hub, tmp_path):
    name = next(iter(model.shards))
    hub.files[f"/{name}"] = LFS_POINTER
    job = model.job(tmp_path, hub.url)
    unverified = replace(job.shards[0], sha256=None)
    with pytest.raises(RackllamaError, match="Git LFS pointer"):
        land(replace(job, shards=(unverified, *job.shards[1:])), tmp_path / "state", FAST)


def test_a_source_that_keeps_failing_is_given_up(model, hub, tmp_path):
    hub.fault = lambda _: Answer(503)
    with pytest.raises(RackllamaError, match=r"cannot be had: http://.* answered 503") as failure:
        land(model.job(tmp_path, hub.url), tmp_path / "state", replace(FAST, patience_seconds=0.1))
    assert "proxy" in failure.value.remedy


def test_another_source_takes_over(model, hub, mirror, tmp_path):
    mirror.fault = lambda _: Answer(503, {"Retry-After": "3600"})
    assert is_landed(model, model.job(tmp_path, mirror.url, hub.url), tmp_path)
    assert len(mirror.requests) < len(hub.requests) + 3 * FAST.connections


def test_an_unreachable_source_is_passed_over(model, hub, tmp_path):
    assert is_landed(model, model.job(tmp_path, "http://127.0.0.1:9", "/nowhere", hub.url), tmp_path)


def test_the_first_source_is_preferred(model, hub, mirror, tmp_path):
    assert is_landed(model, model.job(tmp_path, mirror.url, hub.url), tmp_path)
    assert hub.requests == []


def test_a_source_without_ranges_sends_each_shard_once(model, hub, tmp_path):
    hub.serves_ranges = False
    job = model.job(tmp_path, hub.url)
    assert is_landed(model, job, tmp_path, replace(FAST, connections=1))
    asked = [len(hub.asked(f"/{name}")) for name in model.shards]
    assert max(asked) <= 2  # once to learn it


def test_a_source_without_ranges_that_breaks_off_begins_again(model, hub, tmp_path):
    hub.serves_ranges = False
    hub.fault = first(5, Answer(cut_after=2_500_000))
    assert is_landed(model, model.job(tmp_path, hub.url), tmp_path)


def test_a_corrupt_shard_is_fetched_again_from_the_other_source_and_no_other_shard_is(model, hub, mirror, tmp_path):
    corrupt = list(model.shards)[1]
    good = model.shards[corrupt]
    mirror.files[f"/{corrupt}"] = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    job = model.job(tmp_path, mirror.url, hub.url)
    assert is_landed(model, job, tmp_path)
    assert {request.path for request in hub.requests} == {f"/{corrupt}"}
    assert hub.bytes_sent == len(good)


def test_bits_flipped_on_the_way_are_fetched_again_from_the_only_source(model, hub, tmp_path):
    shard = list(model.shards)[-1]
    good = model.shards[shard]

    def flip(request):
        if request.path == f"/{shard}" and len(hub.asked(request.path)) == 1:
            start, last = request.range
            body = bytearray(good[start : last + 1])
            body[-1] ^= 4
            return Answer(206, {"Content-Range": f"bytes {start}-{last}/{len(good)}"}, bytes(body))
        return None

    hub.fault = flip
    assert is_landed(model, model.job(tmp_path, hub.url), tmp_path)
    assert hub.bytes_sent == sum(map(len, model.shards.values())) + len(good)


def test_the_wrong_shard_is_never_landed_and_its_source_is_named(model, hub, tmp_path):
    corrupt = next(iter(model.shards))
    hub.files[f"/{corrupt}"] = bytes(len(model.shards[corrupt]))
    job = model.job(tmp_path, hub.url, merged=True)
    with pytest.raises(RackllamaError, match=rf"{corrupt} has not the published sha256 .*{hub.url}/{corrupt} sent"):
        land(job, tmp_path / "state", FAST)
    assert not job.destination.exists()
    hub.files[f"/{corrupt}"] = model.shards[corrupt]
    hub.requests.clear()
    assert is_landed(model, job, tmp_path)


def test_an_unverified_file_that_changes_is_not_mixed(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url, sha256s=False)
    last_shard = f"/{list(model.shards)[-1]}"
    hub.fault = lambda request: Answer(404) if request.path == last_shard else None
    with pytest.raises(RackllamaError, match="answered 404"):
        land(job, tmp_path / "state", replace(FAST, connections=1))
    first_shard = next(iter(model.shards))
    changed = model.shards[first_shard][::-1]
    hub.files[f"/{first_shard}"], hub.etag, hub.fault = changed, '"2"', lambda _: None
    part = next(tmp_path.glob("*.part"))
    damaged = bytearray(part.read_bytes())
    damaged[len(model.header) + 100] ^= 1  # so that something of the first shard is asked for again
    part.write_bytes(damaged)
    with pytest.raises(RackllamaError, match="changed while it was fetched"):
        land(job, tmp_path / "state", FAST)
    landed = land(job, tmp_path / "state", FAST)
    place = model.placements[first_shard]
    assert changed[place.source_offset : place.source_end] in job.destination.read_bytes()
    assert not landed.verified


def test_an_unverified_shard_comes_from_one_source(model, hub, mirror, tmp_path):
    mirror.fault = first(3, Answer(500))
    land(model.job(tmp_path, mirror.url, hub.url, sha256s=False), tmp_path / "state", FAST)
    assert hub.requests == []


def test_a_redirect_is_followed_and_remembered_and_the_token_stays_at_home(model, hub, mirror, tmp_path):
    hub.fault = lambda request: Answer(302, {"Location": f"{mirror.url}{request.path}?signature=geheim"})
    mirror.files = {f"{path}?signature=geheim": data for path, data in mirror.files.items()}
    tokens = {hub.url.removeprefix("http://"): "hf_secret"}
    options = replace(FAST, tokens=tokens, connections=1)
    assert is_landed(model, model.job(tmp_path, hub.url), tmp_path, options)
    assert {request.headers["Authorization"] for request in hub.requests} == {"Bearer hf_secret"}
    assert {request.headers["Authorization"] for request in mirror.requests} == {None}
    assert len(hub.requests) == len(model.shards) < len(mirror.requests)


def test_a_signed_address_that_expired_is_asked_for_anew(model, hub, mirror, tmp_path):
    signatures = []

    def redirect(request):
        signatures.append(f"?signature={len(signatures)}")
        mirror.files[request.path + signatures[-1]] = model.shards[request.path[1:]]
        return Answer(302, {"Location": f"{mirror.url}{request.path}{signatures[-1]}"})

    hub.fault = redirect
    uses = {}

    def expire_after_one_use(request):
        uses[request.path] = uses.get(request.path, 0) + 1
        return Answer(403, {}, b"expired") if uses[request.path] > 1 else None

    mirror.fault = expire_after_one_use
    assert is_landed(model, model.job(tmp_path, hub.url), tmp_path, replace(FAST, connections=1))
    assert len(signatures) > len(model.shards)


def test_secrets_of_an_address_are_not_told(model, hub, tmp_path):
    job = model.job(tmp_path, hub.url)
    shards = tuple(replace(shard, sources=(f"{shard.sources[0]}?X-Amz-Signature=geheim",)) for shard in job.shards)
    with pytest.raises(RackllamaError, match="answered 404") as failure:
        land(replace(job, shards=shards), tmp_path / "state", FAST)
    assert "geheim" not in str(failure.value)
    assert "geheim" not in (tmp_path / "state/tiny-1b/progress.json").read_text()


def test_http_goes_through_the_proxy_of_the_environment(model, hub, tmp_path, monkeypatch):
    proxy = hub.url.replace("http://", "http://me:geheim@")
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name, data in model.shards.items():
        hub.files[f"http://hub.example/{name}"] = data
    assert is_landed(model, model.job(tmp_path, "http://hub.example"), tmp_path)
    assert {request.headers["Host"] for request in hub.requests} == {"hub.example"}
    assert all(request.headers["Proxy-Authorization"].startswith("Basic ") for request in hub.requests)


def test_https_goes_through_a_tunnel_that_does_not_see_the_token(model, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", hub.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    options = replace(FAST, patience_seconds=0.05, tokens={"hub.example": "hf_secret"})
    with pytest.raises(RackllamaError, match="Tunnel connection failed: 403"):
        land(model.job(tmp_path, "https://hub.example"), tmp_path / "state", options)
    assert {request.path for request in hub.requests} == {"CONNECT hub.example:443"}
    assert {request.headers["Authorization"] for request in hub.requests} == {None}


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "many"},
        {"Location": "http://[::1/x"},
        {"Retry-After": "\u00b2"},
        {"Content-Range": "bytes 9-1/0"},
        {"Transfer-Encoding": "chunked"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_an_answer_without_sense_is_a_fault_of_its_source(model, hub, mirror, tmp_path, headers):
    mirror.fault = lambda _: Answer(
        302 if "Location" in headers else 503 if "Retry-After" in headers else None, headers
    )
    assert is_landed(model, model.job(tmp_path, mirror.url, hub.url), tmp_path, replace(FAST, timeout_seconds=0.5))


def test_a_file_that_is_cut_short_is_told(model, tmp_path):
    for name, data in model.shards.items():
        (tmp_path / name).write_bytes(data[:-1])
    with pytest.raises(RackllamaError, match=r"has \d+ bytes, and \d+ are wanted"):
        land(model.job(tmp_path, str(tmp_path)), tmp_path / "state", FAST)


class Named:
    def __init__(self, label):
        self.label = label

    def open(self, start, end, connections):
        raise NotImplementedError


def two_sources(backoff_seconds=1.0):
    return Sources([Named("mirror"), Named("upstream")], patience_seconds=100, backoff_seconds=backoff_seconds)


def test_a_failing_source_is_left_alone_for_twice_as_long_each_time():
    sources = Sources([Named("mirror")], patience_seconds=100, backoff_seconds=1)
    now, pauses = 0.0, []
    for _ in range(4):
        sources.failed(0, SourceError("broken"), now)
        assert sources.choice(now) is None
        pauses.append(sources.seconds_until_next(now))
        now += pauses[-1]
    for number, pause in enumerate(pauses):
        assert 2**number / 2 <= pause <= 2**number


def test_a_source_comes_back_when_its_pause_is_over():
    sources = two_sources()
    sources.failed(0, SourceError("busy", retry_after=30), now=0)
    assert sources.choice(now=29) == 1
    assert sources.choice(now=30) == 0


def test_failures_of_several_connections_at_once_are_one():
    sources = two_sources()
    for _ in range(8):
        sources.failed(0, SourceError("broken"), now=0)
    assert sources.choice(now=1) == 0


def test_success_makes_patience_new():
    sources = Sources([Named("mirror")], patience_seconds=100, backoff_seconds=1)
    sources.failed(0, SourceError("broken"), now=0)
    sources.worked(0)
    sources.failed(0, SourceError("broken"), now=1000)
    assert not sources.exhausted
    sources.failed(0, SourceError("broken"), now=1101)
    assert sources.exhausted
    assert sources.complaints == "broken"
