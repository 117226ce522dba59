"""A site's own certificate authority, for gateways whose certificate nobody else signs. Its key stays on this machine.

ca.crt     its certificate, for clients to trust
ca.key     its key, 0600
"""

import datetime
import ipaddress
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rackllama.host.errors import RackllamaError
from rackllama.host.files import write_atomically

CERTIFICATE, KEY = "ca.crt", "ca.key"
AUTHORITY_DAYS = 3650
HOST_DAYS = 365
CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """An authority: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate, for clients."""
        return _pem(self.certificate)


def read_authority(folder: Path) -> Authority | None:
    """The authority that is kept in that folder; None where there is none. Raises RackllamaError for half of one."""
    paths = [folder / CERTIFICATE, folder / KEY]
    there = [path for path in paths if path.exists()]
    if not there:
        return None
    if len(there) < len(paths):
        raise RackllamaError(
            f"{there[0]} is there without its other half",
            f"restore {paths[0]} and {paths[1]} from a backup, or delete the one for a new authority",
        )
    try:
        certificate = x509.load_pem_x509_certificate(paths[0].read_bytes())
        key = serialization.load_pem_private_key(paths[1].read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise RackllamaError(
            f"the authority in {folder} cannot be read: {error}", "restore it from a backup"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise RackllamaError(f"{paths[1]} is not the key of {paths[0]}", "restore both from a backup")
    return Authority(certificate, key)


def authority(folder: Path, site: str) -> Authority:
    """The authority of that folder, made where there is none."""
    with _alone(folder):
        found = read_authority(folder)
        if found:
            return found
        key = ec.generate_private_key(ec.SECP256R1())
        made = Authority(_self_signed(key, site), key)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(folder / KEY, secret.decode(), mode=0o600)
        write_atomically(folder / CERTIFICATE, made.pem)
        return made


def reasons_to_renew(
    pem: str, names: Sequence[str], signer: Authority | None, renewal_days: int, now: datetime.datetime
) -> list[str]:
    """Why a host needs another certificate than the one in `pem`; empty where it serves for longer than `renewal_days`.

    `names` are all host names and addresses that it is to be valid for.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return ["there is none"]
    reasons = []
    left = certificate.not_valid_after_utc - now
    if left < datetime.timedelta(days=renewal_days):
        reasons.append(f"it ends within {renewal_days} days")
    if certificate.not_valid_before_utc > now:
        reasons.append("it is not valid yet")
    if _names(certificate) != {_general_name(name) for name in names}:
        reasons.append("it is for other names")
    if signer is None or not _signed_by(certificate, signer):
        reasons.append("another authority signed it")
    return reasons


def sign(signer: Authority, request: str, names: Sequence[str], now: datetime.datetime) -> str:
    """A certificate in PEM for the key of a request, for these names, whatever else is asked for."""
    asked = x509.load_pem_x509_csr(request.encode())
    if not asked.is_signature_valid:
        raise RackllamaError("a host's certificate request is not signed by its key", "converge again")
    key = asked.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RackllamaError("a host's certificate request is of no elliptic curve", "converge again")
    ends = min(now + datetime.timedelta(days=HOST_DAYS), signer.certificate.not_valid_after_utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(signer.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_issuer_key(signer), critical=False)
    )
    return _pem(built.sign(signer.key, hashes.SHA256()))


def _self_signed(key: ec.EllipticCurvePrivateKey, site: str) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"rackllama {site}"[:64])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def _issuer_key(signer: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())


def _usage(**used: bool) -> x509.KeyUsage:
    usages = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    unused = dict.fromkeys((*usages, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**{**unused, **used})


def _signed_by(certificate: x509.Certificate, signer: Authority) -> bool:
    try:
        certificate.verify_directly_issued_by(signer.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One play at a time makes an authority."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flock(descriptor, LOCK_EX)
        yield
    finally:
        os.close(descriptor)
