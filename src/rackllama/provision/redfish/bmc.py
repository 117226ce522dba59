"""How a BMC is reached: its address, why it is trusted, who logs in; and what its failures mean.

Its password is read from the environment when it is needed, and from nowhere else: it is no input of any resource, so
no state, plan or log holds it.
"""

import http.client
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import sushy  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter
from sushy import connector, exceptions

from rackllama.host.errors import RackllamaError

FINGERPRINT = re.compile(r"(?:[0-9a-f]{2}:?){31}[0-9a-f]{2}", re.IGNORECASE)
CONNECT_SECONDS = 10
READ_SECONDS = 60  # some BMCs take most of a minute over a virtual medium


class HiccupError(RackllamaError):
    """A BMC that did not answer, or was busy: what may be otherwise in a moment."""


@dataclass(frozen=True)
class Bmc:
    """The BMC of the machine `name`, at `endpoint`, as `https://10.0.0.11`.

    Its certificate is verified by the authorities that this system knows, by those of `ca_file`, or by being the one
    whose SHA-256 is `fingerprint`; `insecure` alone does without, and is the only way to speak plain HTTP. `system` is
    the Redfish id of the machine, where the BMC has several.
    """

    name: str
    endpoint: str
    user: str = "admin"
    system: str = ""
    ca_file: str = ""
    fingerprint: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        """Raise RackllamaError for what cannot be reached, or not be trusted."""
        parts = urlsplit(self.endpoint)
        if parts.scheme not in {"https", "http"} or not parts.hostname or parts.path.strip("/"):
            raise RackllamaError(
                f"the BMC of {self.name} cannot be at {self.endpoint!r}", "write it as https://ADDRESS"
            )
        if parts.username or parts.password:
            raise RackllamaError(
                f"the address of the BMC of {self.name} holds a user or a password",
                f"write the address alone, the user as `user`, and the password into {self.variables[0]}",
            )
        if parts.scheme == "http" and not self.insecure:
            raise RackllamaError(
                f"the BMC of {self.name} would be sent its password in the clear",
                "write https://, or allow it with `insecure: true`",
            )
        if (bool(self.ca_file), bool(self.fingerprint), self.insecure).count(True) > 1:
            raise RackllamaError(
                f"the BMC of {self.name} is trusted in several ways", "give one of ca_file, fingerprint and insecure"
            )
        if self.fingerprint and not FINGERPRINT.fullmatch(self.fingerprint):
            raise RackllamaError(
                f"{self.fingerprint!r} is no SHA-256 fingerprint of a certificate",
                f"see it by: openssl s_client -connect {parts.netloc} </dev/null | openssl x509 -noout -sha256 "
                "-fingerprint",
            )

    @property
    def variables(self) -> tuple[str, str]:
        """The environment variables that may hold its password: its own, and the one of all BMCs."""
        return f"RACKLLAMA_BMC_{re.sub(r'[^A-Z0-9]', '_', self.name.upper())}_PASSWORD", "RACKLLAMA_BMC_PASSWORD"

    def as_data(self) -> dict[str, Any]:
        """As inputs of a resource hold it; `Bmc(**data)` is the way back."""
        return asdict(self)


def password_of(bmc: Bmc, environment: Mapping[str, str] | None = None) -> str:
    """The password of its user. Raises RackllamaError where the environment has none."""
    found = os.environ if environment is None else environment
    for variable in bmc.variables:
        if found.get(variable):
            return found[variable]
    raise RackllamaError(
        f"no password is known for {bmc.user!r} at the BMC of {bmc.name}", f"export {' or '.join(bmc.variables)}"
    )


def connect(bmc: Bmc, password: str) -> Any:
    """The service root of the BMC, logged in. Raises RackllamaError, a HiccupError where another try may help."""
    with told(bmc, password):
        way = _PinnedConnector if bmc.fingerprint else connector.Connector
        # Few tries of sushy's own: whoever waits for a BMC does so with a time limit.
        connection = way(
            bmc.endpoint,
            verify=_verify(bmc),
            server_side_retries=2,
            server_side_retries_delay=1,
            default_request_timeout=READ_SECONDS,
            connect_timeout=CONNECT_SECONDS,
        )
        if bmc.fingerprint:
            connection.pin(bmc.fingerprint)
        auth = sushy.auth.SessionOrBasicAuth(username=bmc.user, password=password)
        return sushy.Sushy(bmc.endpoint, auth=auth, connector=connection)


@contextmanager
def told(bmc: Bmc, password: str) -> Iterator[None]:
    """Within it failures of sushy become RackllamaError in our words, without the password wherever it was echoed."""
    try:
        yield
    except exceptions.SushyError as error:
        failure = _failure(bmc, error)
        # From None, as a traceback shows the text of what it was raised from.
        raise type(failure)(failure.message.replace(password, "***"), failure.remedy) from None


def _failure(bmc: Bmc, error: Exception) -> RackllamaError:
    match error:
        case exceptions.AccessError():
            return RackllamaError(
                f"the BMC of {bmc.name} refuses {bmc.user!r}",
                f"export the password of {bmc.user!r} as {' or '.join(bmc.variables)}, and see that this user may "
                "change power, boot and virtual media",
            )
        case exceptions.ConnectionError() if _is_untrusted(error):
            return RackllamaError(
                f"the certificate of the BMC of {bmc.name} is not trusted: {error}",
                "give `ca_file`, or the `fingerprint` that the machine itself shows; `insecure: true` trusts anybody",
            )
        case exceptions.ConnectionError():
            return HiccupError(
                f"the BMC of {bmc.name} does not answer: {error}", f"see that {bmc.endpoint} can be reached from here"
            )
        case exceptions.ServerSideError():
            return HiccupError(f"the BMC of {bmc.name} failed: {error}", "try again; restart the BMC where it stays so")
        case exceptions.HTTPError(status_code=http.client.TOO_MANY_REQUESTS):
            return HiccupError(f"the BMC of {bmc.name} has no time: {error}", "try again in a while")
        case _:
            return RackllamaError(
                f"the BMC of {bmc.name} would not do that: {error}", "see docs/bare-metal.md for what a BMC must offer"
            )


def _is_untrusted(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        # Any other fault of TLS is that of a BMC whose web server is just starting again.
        if isinstance(cause, ssl.SSLCertVerificationError) or "Fingerprints did not match" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _verify(bmc: Bmc) -> bool | str:
    return bmc.ca_file or not (bmc.insecure or bmc.fingerprint)


class _PinnedConnector(connector.Connector):  # type: ignore[misc]
    """A connector that speaks to a server of one certificate alone, whoever signed it."""

    def pin(self, fingerprint: str) -> None:
        self._session.mount("https://", _Pinned(fingerprint))


class _Pinned(HTTPAdapter):
    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        super().init_poolmanager(*arguments, **keywords, assert_fingerprint=self._fingerprint)

    def proxy_manager_for(self, proxy: str, **keywords: Any) -> Any:
        return super().proxy_manager_for(proxy, **keywords, assert_fingerprint=self._fingerprint)
