"""How a BMC is reached and trusted, and what is told of its failures: on sushy's emulator."""

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.stacks import bmc as stand

from rackllama.host.errors import RackllamaError
from rackllama.provision.redfish.bmc import Bmc, HiccupError, _PinnedConnector, password_of
from rackllama.provision.redfish.machine import Machine

FINGERPRINT = "ab" * 32


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"endpoint": "10.0.0.1"}, "cannot be at"),
        ({"endpoint": "https://10.0.0.1/redfish/v1"}, "cannot be at"),
        ({"endpoint": "https://admin:secret@10.0.0.1"}, "holds a user or a password"),
        ({"endpoint": "http://10.0.0.1"}, "in the clear"),
        ({"insecure": True, "fingerprint": FINGERPRINT}, "trusted in several ways"),
        ({"fingerprint": "abcd"}, "no SHA-256 fingerprint"),
    ],
)
def test_what_cannot_be_reached_or_trusted_is_refused_before_anything_is_sent(given: dict[str, Any], why: str) -> None:
    with pytest.raises(RackllamaError, match=why) as refused:
        Bmc(**{"name": "gpu1", "endpoint": "https://10.0.0.1", **given})
    assert refused.value.remedy
    assert "secret" not in refused.value.message


def test_the_password_of_a_bmc_goes_before_that_of_all() -> None:
    bmc = Bmc("gpu-1.rack", "https://10.0.0.1")
    assert password_of(bmc, {"RACKLLAMA_BMC_PASSWORD": "all"}) == "all"
    assert password_of(bmc, {"RACKLLAMA_BMC_PASSWORD": "all", "RACKLLAMA_BMC_GPU_1_RACK_PASSWORD": "own"}) == "own"
    with pytest.raises(RackllamaError, match="no password is known for 'admin'") as refused:
        password_of(bmc, {})
    assert "RACKLLAMA_BMC_GPU_1_RACK_PASSWORD or RACKLLAMA_BMC_PASSWORD" in refused.value.remedy


def test_a_wrong_password_is_told_without_it(emulated: stand.Bmc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKLLAMA_BMC_GPU1_PASSWORD", "hunter2")
    with Machine(Bmc(**emulated.data())) as machine, pytest.raises(RackllamaError, match="refuses 'admin'") as refused:
        machine.situation()
    assert not isinstance(refused.value, HiccupError)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__, "a traceback would show what it was raised from"


def test_a_password_that_a_bmc_echoes_is_not_told(emulated: stand.Bmc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKLLAMA_BMC_PASSWORD", "busy")  # what the proxy answers a failure with
    emulated.statuses[:] = [400] * 4
    with Machine(Bmc(**emulated.data())) as machine, pytest.raises(RackllamaError, match=r"\*\*\*") as refused:
        machine.situation()
    emulated.statuses.clear()
    assert "busy" not in str(refused.value)


def test_a_bmc_that_is_away_or_busy_may_answer_in_a_moment(emulated: stand.Bmc) -> None:
    machine = Machine(Bmc(**emulated.data()))
    emulated.down = True
    with pytest.raises(HiccupError, match="the BMC of gpu1 does not answer"):
        machine.situation()
    emulated.down = False
    emulated.statuses[:] = [503] * 9
    with pytest.raises(HiccupError, match="the BMC of gpu1 failed"):
        machine.situation()
    emulated.statuses.clear()
    with machine:
        assert machine.situation().power == "Off"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a BMC makes itself, as all have when they are new."""
    return _certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secured(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stand.Bmc]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with stand.bmc(tmp_path_factory.mktemp("secured"), tls=context) as running:
        yield running


def test_a_certificate_of_its_own_making_is_not_trusted_as_it_comes(secured: stand.Bmc) -> None:
    machine = Machine(Bmc(**secured.data(insecure=False)))
    with pytest.raises(RackllamaError, match="is not trusted") as refused:
        machine.situation()
    assert not isinstance(refused.value, HiccupError), "no other try would help"
    assert "fingerprint" in refused.value.remedy


def test_it_is_trusted_as_an_authority_by_its_fingerprint_or_unseen(secured: stand.Bmc, certificate: Path) -> None:
    fingerprint = x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256()).hex(":")
    for trust in ({"ca_file": str(certificate)}, {"fingerprint": fingerprint}, {"insecure": True}):
        with Machine(Bmc(**secured.data(**{"insecure": False, **trust}))) as machine:
            assert machine.situation().identity.serial == stand.SERIAL, trust


def test_by_a_fingerprint_no_other_certificate_is_trusted(secured: stand.Bmc) -> None:
    machine = Machine(Bmc(**secured.data(insecure=False, fingerprint=FINGERPRINT)))
    with pytest.raises(RackllamaError, match="is not trusted"):
        machine.situation()


def test_a_fingerprint_holds_behind_a_proxy_too() -> None:
    session = _PinnedConnector("https://192.0.2.1/redfish/v1", verify=False)
    session.pin(FINGERPRINT)
    manager = session._session.get_adapter("https://192.0.2.1").proxy_manager_for("http://192.0.2.9:3128")
    assert manager.connection_pool_kw["assert_fingerprint"] == FINGERPRINT


def test_a_web_server_that_closes_in_the_handshake_is_just_starting_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_close_each, args=[listening], daemon=True).start()
        endpoint = f"https://127.0.0.1:{listening.getsockname()[1]}"
        machine = Machine(Bmc(name="gpu1", endpoint=endpoint, user="admin"))
        with pytest.raises(HiccupError, match="does not answer"):
            machine.situation()


def _close_each(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listening.accept()[0].close()


def _certificate(folder: Path) -> Path:
    """A key and its certificate for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bmc")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "bmc.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
