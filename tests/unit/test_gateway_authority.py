"""A site's own authority: made once, and certificates renewed only where there is a reason."""

import datetime
import ssl
import subprocess
import threading

import pytest
from cryptography import x509

from rackllama.gateway.authority import CERTIFICATE, KEY, authority, read_authority, reasons_to_renew, sign
from rackllama.gateway.signing import Signing
from rackllama.host.errors import RackllamaError

NAMES = ["gpu1.example", "192.0.2.11", "localhost"]
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def signer(tmp_path):
    return authority(tmp_path / "ca", "example")


@pytest.fixture
def request_of_a_host(tmp_path):
    """A certificate request as a host makes it, by openssl."""
    key = tmp_path / "host.key"
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key))
    subprocess.run(["openssl", "genpkey", *curve], check=True)
    asked = [
        "openssl",
        "req",
        "-new",
        "-key",
        str(key),
        "-subj",
        "/CN=any",
        "-addext",
        "subjectAltName=DNS:evil.example",
    ]
    return key, subprocess.run(asked, check=True, capture_output=True, text=True).stdout


def test_it_is_made_once_and_its_key_is_for_its_owner_alone(tmp_path, signer):
    assert authority(tmp_path / "ca", "example").pem == signer.pem
    assert (tmp_path / "ca" / KEY).stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in (tmp_path / "ca" / CERTIFICATE).read_text()


def test_half_of_one_is_not_replaced_by_a_new_one(tmp_path, signer):
    (tmp_path / "ca" / KEY).unlink()
    with pytest.raises(RackllamaError, match="without its other half"):
        authority(tmp_path / "ca", "example")


def test_the_key_of_another_is_refused(tmp_path, signer):
    authority(tmp_path / "other", "example")
    (tmp_path / "other" / KEY).replace(tmp_path / "ca" / KEY)
    with pytest.raises(RackllamaError, match="is not the key of"):
        read_authority(tmp_path / "ca")


def test_a_client_that_trusts_it_believes_a_signed_host_and_no_other_name(tmp_path, signer, request_of_a_host):
    key, request = request_of_a_host
    certificate = tmp_path / "host.crt"
    certificate.write_text(sign(signer, request, NAMES, NOW))
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)

    def handshake(name):
        client_side = ssl.create_default_context(cadata=signer.pem)
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
        server = server_side.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        return client.getpeercert()

    assert all(handshake(name) for name in NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake("evil.example")  # the request asked for it


def test_a_certificate_that_serves_is_left_alone(signer, request_of_a_host):
    pem = sign(signer, request_of_a_host[1], NAMES, NOW)
    assert reasons_to_renew(pem, NAMES[::-1], signer, 30, NOW) == []


def test_each_reason_to_renew_is_told(tmp_path, signer, request_of_a_host):
    pem = sign(signer, request_of_a_host[1], NAMES, NOW)
    later = NOW + datetime.timedelta(days=336)
    assert reasons_to_renew("", NAMES, signer, 30, NOW) == ["there is none"]
    assert reasons_to_renew(pem, NAMES, signer, 30, later) == ["it ends within 30 days"]
    assert reasons_to_renew(pem, [*NAMES, "gpu2.example"], signer, 30, NOW) == ["it is for other names"]
    assert reasons_to_renew(pem, NAMES, authority(tmp_path / "new", "new"), 30, NOW) == ["another authority signed it"]
    assert reasons_to_renew(pem, NAMES, None, 30, NOW) == ["another authority signed it"]


def test_looking_makes_no_authority(tmp_path):
    assert Signing(tmp_path / "site" / "ca", NAMES, 30).reasons("") == ["there is none"]
    assert not (tmp_path / "site").exists()


def test_plays_that_run_at_once_make_one_authority(tmp_path):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(authority(tmp_path / "ca", "example").pem)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1
    assert x509.load_pem_x509_certificate(made[0].encode()).subject.rfc4514_string() == "CN=rackllama example"
