"""Provider plugins: attached where PULUMI_DEBUG_PROVIDERS says; only the one of dynamic providers is started."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from .state import CliError, Resource
from .values import SIGNATURE, Properties, from_struct, has_unknowns, secret_as_in, to_struct, unwrapped

DYNAMIC = "pulumi-python"
LOCAL = [("grpc.max_receive_message_length", 400 << 20), ("grpc.enable_http_proxy", 0)]


class ProviderError(Exception):
    """What a provider says when it fails."""


@dataclass(frozen=True)
class Diff:
    """What a provider finds changed: `replaces` are the keys that need a new resource."""

    changed: bool
    replaces: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    delete_first: bool = False


@dataclass
class Provider:
    """One configured provider, asked over gRPC."""

    stub: provider_pb2_grpc.ResourceProviderStub
    accepts_secrets: bool = False
    supports_preview: bool = False

    def _known(self, old: Resource) -> dict[str, Any]:
        """What a request tells of a resource that is there."""
        return {
            "id": old.id,
            "urn": old.urn,
            "olds": self._send(old.outputs),
            "old_inputs": self._send(old.inputs),
            **_named(old.urn),
        }

    def _send(self, properties: Properties) -> Any:
        return to_struct(properties if self.accepts_secrets else unwrapped(properties))

    def configure(self, package: str, inputs: Properties) -> None:
        """Give it its configuration."""
        plain = {key: value for key, value in unwrapped(inputs).items() if not has_unknowns(value)}
        variables = {f"{package}:config:{key}": value for key, value in plain.items() if isinstance(value, str)}
        with _errors():
            answer = self.stub.Configure(
                provider_pb2.ConfigureRequest(
                    variables=variables, args=to_struct(plain), acceptSecrets=True, sends_old_inputs=True
                )
            )
        self.accepts_secrets, self.supports_preview = answer.acceptSecrets, answer.supportsPreview

    def check(self, urn: str, olds: Properties, news: Properties) -> tuple[Properties, list[tuple[str, str]]]:
        """The inputs as the provider wants them, and each property that it refuses with the reason."""
        with _errors():
            answer = self.stub.Check(
                provider_pb2.CheckRequest(urn=urn, olds=self._send(olds), news=self._send(news), **_named(urn))
            )
        inputs = secret_as_in(from_struct(answer.inputs), news)
        return inputs, [(failure.property, failure.reason) for failure in answer.failures]

    def diff(self, old: Resource, news: Properties, ignore: list[str]) -> Diff:
        """What is to be done to come from what is to what is wanted."""
        with _errors():
            answer = self.stub.Diff(
                provider_pb2.DiffRequest(**self._known(old), news=self._send(news), ignoreChanges=ignore)
            )
        changed = answer.changes == provider_pb2.DiffResponse.DIFF_SOME or bool(answer.replaces)
        if answer.changes == provider_pb2.DiffResponse.DIFF_UNKNOWN:
            changed = changed or unwrapped(old.inputs) != unwrapped(news)
        return Diff(changed, tuple(answer.replaces), tuple(answer.diffs), answer.deleteBeforeReplace)

    def create(self, urn: str, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """The id and outputs of a new resource; in a preview what is known of them."""
        if preview and not self.supports_preview:
            return "", {}
        with _errors():
            answer = self.stub.Create(
                provider_pb2.CreateRequest(urn=urn, properties=self._send(inputs), preview=preview, **_named(urn))
            )
        return answer.id, secret_as_in(from_struct(answer.properties), inputs)

    def update(self, old: Resource, inputs: Properties, ignore: list[str], preview: bool) -> Properties:
        """The outputs of a changed resource."""
        if preview and not self.supports_preview:
            return {}
        with _errors():
            answer = self.stub.Update(
                provider_pb2.UpdateRequest(
                    **self._known(old), news=self._send(inputs), ignoreChanges=ignore, preview=preview
                )
            )
        return secret_as_in(from_struct(answer.properties), inputs)

    def delete(self, old: Resource) -> None:
        """Delete a resource."""
        with _errors():
            self.stub.Delete(
                provider_pb2.DeleteRequest(
                    id=old.id,
                    urn=old.urn,
                    properties=self._send(old.outputs),
                    old_inputs=self._send(old.inputs),
                    **_named(old.urn),
                )
            )

    def read(self, urn: str, id_: str, inputs: Properties, outputs: Properties) -> tuple[str, Properties, Properties]:
        """What there is now: id, inputs and outputs. The id is empty where the resource is gone."""
        with _errors():
            answer = self.stub.Read(
                provider_pb2.ReadRequest(
                    id=id_, urn=urn, properties=self._send(outputs), inputs=self._send(inputs), **_named(urn)
                )
            )
        found = from_struct(answer.inputs) if answer.HasField("inputs") else inputs
        return answer.id, secret_as_in(found, inputs), secret_as_in(from_struct(answer.properties), outputs)

    def invoke(self, token: str, args: Properties, preview: bool) -> provider_pb2.InvokeResponse:
        """Call a function."""
        with _errors():
            return self.stub.Invoke(provider_pb2.InvokeRequest(tok=token, args=self._send(args), preview=preview))


@dataclass
class Plugins:
    """The plugins of one run of the CLI. `configured` has each provider by its reference, `URN::id`."""

    folder: Path
    environment: Mapping[str, str]
    configured: dict[str, Provider] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def provider(self, reference: str, package: str, inputs: Properties) -> Provider:
        """The provider of a reference, configured when first asked for."""
        with self.lock:
            if reference not in self.configured:
                provider = Provider(provider_pb2_grpc.ResourceProviderStub(self._channel(package)))
                provider.configure(package, {key: value for key, value in inputs.items() if key != SIGNATURE})
                self.configured[reference] = provider
            return self.configured[reference]

    def _channel(self, package: str) -> grpc.Channel:
        attached = dict(
            entry.split(":", 1) for entry in os.environ.get("PULUMI_DEBUG_PROVIDERS", "").split(",") if entry
        )
        if package in attached:
            return grpc.insecure_channel(f"127.0.0.1:{attached[package]}", options=LOCAL)
        if package != DYNAMIC:
            raise CliError(
                f"the test double starts no plugin '{package}'; attach one by PULUMI_DEBUG_PROVIDERS={package}:PORT"
            )
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "pulumi.dynamic"],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise CliError(f"could not start the plugin of dynamic providers: it printed {port!r}")
        threading.Thread(target=_pass_on, args=(process,), daemon=True).start()
        return grpc.insecure_channel(f"127.0.0.1:{port}", options=LOCAL)

    def stop(self) -> None:
        """End what was started."""
        for process in self.processes:
            process.kill()
            process.wait()


def _pass_on(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    for line in process.stdout:
        sys.stdout.write(line)


def _named(urn: str) -> dict[str, str]:
    _, _, qualified, name = urn.split("::", 3)
    return {"name": name, "type": qualified.rsplit("$", 1)[-1]}


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise ProviderError(error.details() or str(error.code())) from error
