"""Whose credentials requests for S3 are signed with. The metadata service is a stand-in."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from rackllama.host.lander.aws_credentials import ROLES, Credentials, CredentialSource
from rackllama.host.lander.sources import SourceError

from .landing.hub import Answer, Hub, Request, serve

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def service() -> Iterator[Hub]:
    """A stand-in for a metadata service: an instance's (second version) and a container's."""
    hub = Hub({f"{ROLES}": b"lander\n"})
    sessions = iter(f"session-{number}" for number in range(100))

    def answered(request: Request) -> Answer | None:
        if request.path == "/latest/api/token":
            asked = request.method == "PUT" and request.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "21600"
            return Answer(200, body=b"imds") if asked else Answer(405)
        if request.path in (f"{ROLES}lander", "/v2/credentials"):
            of_instance = request.headers["X-aws-ec2-metadata-token"] == "imds"
            of_container = request.headers["Authorization"] == "container"
            return Answer(200, body=credentials(next(sessions))) if of_instance or of_container else Answer(401)
        return None if request.headers["X-aws-ec2-metadata-token"] == "imds" else Answer(401)

    hub.fault = answered
    server = serve(hub)
    yield hub
    server.shutdown()
    server.server_close()


def credentials(token: str) -> bytes:
    document = {"Code": "Success", "AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": token}
    return json.dumps({**document, "Expiration": "2026-01-01T06:00:00Z"}).encode()


def of_instance(service: Hub) -> dict[str, str]:
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{service.url}/"}


def of_container(service: Hub) -> dict[str, str]:
    full = f"{service.url}/v2/credentials"
    return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": full, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "container"}


@pytest.mark.parametrize("place", [of_instance, of_container])
def test_credentials_of_a_role_are_refreshed_before_they_expire(service, place):
    clock = Clock()
    source = CredentialSource(place(service), clock)
    given = source.current()
    assert (given.access_key, given.secret_key, given.token) == (KEY, SECRET, "session-0")
    assert source.current() is given
    clock.now += 6 * 3600 - 299
    assert source.current().token == "session-1"
    assert SECRET not in repr(given)


def test_a_service_that_fails_for_a_while_costs_nothing_until_they_expire(service):
    clock = Clock()
    source = CredentialSource(of_instance(service), clock)
    given, works = source.current(), service.fault
    service.fault = lambda _: Answer(500)
    clock.now += 6 * 3600 - 299
    assert source.current() is given
    clock.now += 300
    with pytest.raises(SourceError, match="no credentials for S3 can be had"):
        source.current()
    service.fault = works
    assert source.current().token == "session-1"


def test_an_instance_without_a_role_is_anonymous(service):
    service.files.clear()
    assert CredentialSource(of_instance(service)).current() is None


def test_the_token_of_a_container_from_a_file(service, tmp_path):
    (tmp_path / "token").write_text("container\n")
    environment = {**of_container(service), "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token")}
    assert CredentialSource(environment).current().token == "session-0"


def test_what_a_service_says_of_a_failure(service):
    works = service.fault
    service.fault = lambda request: (
        Answer(200, body=b'{"Code": "Failed"}') if request.path == f"{ROLES}lander" else works(request)
    )
    with pytest.raises(SourceError, match="the metadata service says Failed"):
        CredentialSource(of_instance(service)).current()


@pytest.mark.parametrize("address", ["http://elsewhere.example/x", "http://169.254.169.254/x", "http:///x"])
def test_credentials_are_not_asked_of_anybody(address):
    with pytest.raises(SourceError, match="neither near nor encrypted"):
        CredentialSource({"AWS_CONTAINER_CREDENTIALS_FULL_URI": address}).current()


def test_the_environment_comes_first(service):
    environment = {**of_instance(service), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert CredentialSource(environment).current() == Credentials("a", "b")
    assert CredentialSource({"AWS_EC2_METADATA_DISABLED": "true"}).current() is None
    assert not service.requests
