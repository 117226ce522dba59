"""Shards in S3: what is signed and how, with whose credentials, and what a store (a stand-in) makes of it."""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import s3
from rackllama.host.lander.aws_credentials import Credentials
from rackllama.host.lander.landing import land

from .land_command import FIRST, SHARDS, landed, merged, refused, sha256, state
from .landing.hub import Answer, Hub, Request, first, serve
from .landing.model import FAST, make_model

__all__ = ["state"]  # a fixture

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
FOLDER = "models/tiny (1b)+é"


# What is signed


@pytest.mark.parametrize(
    ("token", "signature"),
    [
        # The example of Amazon's own documentation (S3 API reference, "Example: GET Object").
        (None, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        # The same with a session token, as botocore 1.44.5 signs it.
        ("token/+=", "b1b4dfe14fb09f278bc6d3655ecdc85c31ba645cf9914d7cb52140ae6a49ea97"),
    ],
)
def test_the_published_example(token, signature):
    signed = s3.signed_headers(
        "https://examplebucket.s3.amazonaws.com/test.txt",
        {"User-Agent": "rackllama", "Range": "bytes=0-9"},
        Credentials(KEY, SECRET, token),
        "us-east-1",
        datetime(2013, 5, 24, tzinfo=UTC),
    )
    names = "host;range;x-amz-content-sha256;x-amz-date" + (";x-amz-security-token" if token else "")
    scope = f"{KEY}/20130524/us-east-1/s3/aws4_request"
    assert signed["Authorization"] == (
        f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"
    )
    assert signed["User-Agent"] == "rackllama"
    assert signed.get("X-Amz-Security-Token") == token


@pytest.mark.parametrize(
    ("environment", "place", "address"),
    [
        ({}, "s3://models/r1/a.gguf", "https://models.s3.us-east-1.amazonaws.com/r1/a.gguf"),
        ({"AWS_REGION": "eu-north-1"}, "s3://models/a", "https://models.s3.eu-north-1.amazonaws.com/a"),
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, "s3://models/a", "https://models.s3.eu-north-1.amazonaws.com/a"),
        ({}, "s3://models.example/a", "https://s3.us-east-1.amazonaws.com/models.example/a"),
        (
            {"AWS_ENDPOINT_URL": "https://minio:9000/"},
            "s3://models/a b~é+",
            "https://minio:9000/models/a%20b~%C3%A9%2B",
        ),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, "s3://models/a", "http://b/models/a"),
    ],
)
def test_addresses(environment, place, address):
    assert s3.account_of(environment).address(place) == address


@pytest.mark.parametrize(
    "place",
    [
        "s3://",
        "s3://models",
        "s3://models/",
        "s3:///a",
        "s3://models/../a",
        "s3://models//a",
        "s3://models/a\0",
        "s3://evil.example#/a",
        "s3://user@host/a",
        "s3://Models/a",
        "s3://host:80/a",
    ],
)
def test_what_names_no_object(place):
    with pytest.raises(RackllamaError, match="names no object in S3"):
        s3.account_of({}).address(place)


def test_an_endpoint_that_is_no_address():
    with pytest.raises(RackllamaError, match="the endpoint of S3 is 'minio:9000'"):
        s3.account_of({"AWS_ENDPOINT_URL": "minio:9000"})


# Against a store


def is_signed(request: Request, secret: str, region: str = "us-east-1") -> bool:
    """What a store does: sign what came over the wire with the secret that it knows, and compare."""
    told = dict(part.strip().split("=", 1) for part in request.headers["Authorization"].partition(" ")[2].split(","))
    headers = {name: request.headers[name] for name in told["SignedHeaders"].split(";")}
    stamp = request.headers["x-amz-date"]
    canonical = f"GET\n{request.path}\n\n"
    canonical += "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical += f"\n{told['SignedHeaders']}\n{request.headers['x-amz-content-sha256']}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    age = datetime.now(UTC) - datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return (
        told["Signature"] == hmac.digest(key, text.encode(), "sha256").hex()
        and told["Credential"] == f"{KEY}/{scope}"
        and {"host", "x-amz-content-sha256", "x-amz-date"} <= set(headers)
        and abs(age.total_seconds()) < 900
    )


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in for an S3-compatible store, which lets in who signs with the secret."""
    hub = Hub({f"/models/{quote(f'{FOLDER}/{name}')}": data for name, data in SHARDS.items()})
    denied = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>no</Message></Error>"

    def let_in(request: Request) -> Answer | None:
        if request.headers["Authorization"] is None:
            return Answer(403, body=denied % b"AccessDenied")
        return None if is_signed(request, SECRET) else Answer(403, body=denied % b"SignatureDoesNotMatch")

    hub.fault = let_in
    server = serve(hub)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": hub.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    yield hub
    server.shutdown()
    server.server_close()


def test_shards_from_a_bucket(store, tmp_path, capsys):
    result = landed(capsys, f"s3://models/{FOLDER}/{FIRST}", "--out", tmp_path / "tiny.gguf")
    assert (tmp_path / "tiny.gguf").read_bytes() == merged()
    assert not result["verified"]


def test_a_session_token_is_sent_and_signed(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session/+=")
    landed(capsys, f"s3://models/{FOLDER}/{FIRST}", "--out", tmp_path / "tiny.gguf")
    assert {request.headers["x-amz-security-token"] for request in store.requests} == {"session/+="}
    assert all("x-amz-security-token" in request.headers["Authorization"] for request in store.requests)


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("another", "403 Forbidden (SignatureDoesNotMatch): it wants other credentials"),
        (None, "403 Forbidden (AccessDenied): it wants other credentials"),
    ],
    ids=["another", "none"],
)
def test_who_is_not_let_in_is_told_why(store, tmp_path, capsys, monkeypatch, secret, told):  # noqa: PLR0913, PLR0917
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, secret) if secret else monkeypatch.delenv(name)
    assert told in refused(capsys, f"s3://models/{FOLDER}/{FIRST}", "--out", tmp_path / "tiny.gguf")


def test_a_public_bucket_is_read_without_credentials(store, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store.fault = lambda _: None
    landed(capsys, f"s3://models/{FOLDER}/{FIRST}", "--out", tmp_path / "tiny.gguf")
    assert {request.headers["Authorization"] for request in store.requests} == {None}


@pytest.mark.parametrize("status", [301, 400])
def test_a_bucket_in_another_region_names_it(store, tmp_path, capsys, status):
    store.fault = lambda _: Answer(status, {"X-Amz-Bucket-Region": "eu-north-1"})
    told = refused(capsys, f"s3://models/{FOLDER}/{FIRST}", "--out", tmp_path / "tiny.gguf")
    assert f"answered {status}" in told
    assert "its region is eu-north-1" in told


def test_half_of_the_credentials(store, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    told = refused(capsys, f"s3://models/{FOLDER}/{FIRST}", "--out", tmp_path / "tiny.gguf")
    assert "one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is missing" in told
    assert not store.requests


def test_the_signature_does_not_go_along_with_a_redirect(store, tmp_path, capsys):
    name = f"/models/{quote(f'{FOLDER}/{FIRST}')}"
    store.files["/elsewhere"] = SHARDS[FIRST]
    answers = {name: Answer(307, {"Location": "/elsewhere"}), "/elsewhere": None}
    let_in = store.fault
    store.fault = lambda request: answers[request.path] if request.path in answers else let_in(request)
    landed(capsys, f"s3://models/{FOLDER}/{FIRST}", "--out", tmp_path / "tiny.gguf")
    assert {request.headers["Authorization"] for request in store.asked("/elsewhere")} == {None}


def test_a_job_on_the_serving_host_has_a_bucket_among_its_sources(store, tmp_path):
    model = make_model(100_000, 50_000)
    store.files = {f"/models/tiny/{name}": data for name, data in model.shards.items()}
    store.fault = first(3, Answer(503))
    job = model.job(tmp_path, f"{store.url}/nothing", "s3://models/tiny")
    one = replace(job.shards[0], sources=("s3://models/tiny/",))
    landed = land(replace(job, shards=(one, *job.shards[1:])), tmp_path / "state", FAST)
    assert landed.sha256 == sha256(model.merged)
    assert landed.verified
