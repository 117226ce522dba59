"""The plugin's gRPC service. It is attached by PULUMI_DEBUG_PROVIDERS=aws:PORT, to the double or to the real CLI."""

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from ..providers import LOCAL
from ..values import from_struct, has_unknowns, to_struct, unwrapped
from . import compute, network, services
from .cloud import AwsError, Cloud, Failure, Properties
from .invokes import INVOKES
from .kind import Kind

KINDS: dict[str, Kind] = {**network.KINDS, **compute.KINDS, **services.KINDS}
IGNORED = {"__defaults", "region"}


@dataclass
class AwsDouble(provider_pb2_grpc.ResourceProviderServicer):
    """The provider for moto at `endpoint`. `failures` holds what is to fail, `kept` what moto does not know."""

    endpoint: str
    failures: list[Failure] = field(default_factory=list)
    kept: dict[str, Properties] = field(default_factory=dict)
    cloud: Cloud = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.cloud = Cloud(self.endpoint, failures=self.failures, kept=self.kept)

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """What the provider can do."""
        return provider_pb2.ProviderHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """A version that nobody takes for one of pulumi-aws."""
        return plugin_pb2.PluginInfo(version="0.0.1-double")

    def Attach(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        """An engine attached."""
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        """Nothing here takes long."""
        return empty_pb2.Empty()

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Any configuration will do."""
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """A changed configuration needs no new provider."""
        same = from_struct(request.olds) == from_struct(request.news)
        changes = provider_pb2.DiffResponse
        return changes(changes=changes.DIFF_NONE if same else changes.DIFF_SOME)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Take region and default tags."""
        args = unwrapped(from_struct(request.args))
        tags = args.get("defaultTags", {})
        tags = json.loads(tags) if isinstance(tags, str) else tags
        region = args.get("region") or "us-east-1"
        self.cloud = Cloud(self.endpoint, region, tags.get("tags", {}), self.failures, self.kept)
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Refuse what lacks a required input, and give a name where the program gives none."""
        with _failures(context, "checking"):
            kind = _kind(request.type or request.urn.split("::")[2].rsplit("$", 1)[-1])
        olds, news = from_struct(request.olds), from_struct(request.news)
        if kind.named and not news.get("name"):
            name = request.name or request.urn.split("::", 3)[3]
            news["name"] = olds.get("name") or f"{name}-{_suffix(request.urn)}"
        failures = [
            provider_pb2.CheckFailure(reason=f"Missing required argument. The argument \"{key}\" is required, but no "
                                      f"definition was found.. Examine values at '{request.name}.{key}'.")
            for key in sorted(kind.required) if news.get(key) is None
        ]  # fmt: skip
        return provider_pb2.CheckResponse(inputs=to_struct(news), failures=failures)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Which inputs changed, and which of these need a new resource."""
        with _failures(context, "diffing"):
            kind = _kind(request.type or request.urn.split("::")[2].rsplit("$", 1)[-1])
        olds, news = from_struct(request.old_inputs), from_struct(request.news)
        changed = sorted(k for k in {*olds, *news} - IGNORED if olds.get(k) != news.get(k))
        if self.cloud.tags(news) != from_struct(request.olds).get("tagsAll", self.cloud.tags(news)):
            changed = sorted({*changed, "tagsAll"})
        answer = provider_pb2.DiffResponse
        return answer(
            changes=answer.DIFF_SOME if changed else answer.DIFF_NONE,
            diffs=changed,
            replaces=[key for key in changed if key in kind.replace],
            deleteBeforeReplace=kind.delete_first,
        )

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Make it; in a preview say what is known."""
        kind, news = KINDS[_type(request)], from_struct(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=to_struct(news))
        with _failures(context, f"creating {kind.label}"):
            id_ = kind.create(self.cloud, news)
            outputs = self._outputs(kind, id_, news)
        return provider_pb2.CreateResponse(id=id_, properties=to_struct(outputs))

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Change it."""
        kind = KINDS[_type(request)]
        olds, news = from_struct(request.olds), from_struct(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=to_struct({**olds, **news}))
        with _failures(context, f"updating {kind.label} ({request.id})"):
            kind.update(self.cloud, request.id, olds, news)
            outputs = self._outputs(kind, request.id, news)
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """What there is; an answer without id says that it is gone."""
        with _failures(context, f"reading {_type(request)} ({request.id})"):
            kind = _kind(_type(request))
            known = {**from_struct(request.inputs), **from_struct(request.properties)}
            found = kind.read(self.cloud, request.id, known)
        if found is None:
            return provider_pb2.ReadResponse()
        outputs = {**known, **_plain(kind.outputs(found))}
        answer = provider_pb2.ReadResponse(id=request.id, properties=to_struct(outputs))
        answer.inputs.CopyFrom(request.inputs)
        return answer

    def Delete(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        """Delete it; what is gone already counts as deleted."""
        kind, olds = KINDS[_type(request)], from_struct(request.properties)
        with _failures(context, f"deleting {kind.label} ({request.id})"):
            if kind.read(self.cloud, request.id, olds) is not None:
                kind.delete(self.cloud, request.id, olds)
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Look something up."""
        args = from_struct(request.args)
        answer = provider_pb2.InvokeResponse()
        with _failures(context, f"invoking {request.tok}"):
            if request.tok not in INVOKES:
                raise AwsError(f"the double of the aws provider does not know the function {request.tok}")
            if not has_unknowns(args):
                getattr(answer, "return").CopyFrom(to_struct(args | _plain(INVOKES[request.tok](self.cloud, args))))
        return answer

    def _outputs(self, kind: Kind, id_: str, news: Properties) -> Properties:
        found = kind.read(self.cloud, id_, news)
        return {"tagsAll": self.cloud.tags(news), **news, **_plain(kind.outputs(found) if found else {}), "id": id_}


def _type(request: Any) -> str:
    return str(request.urn.split("::")[2].rsplit("$", 1)[-1])


def _kind(type_: str) -> Kind:
    if type_ not in KINDS:
        raise AwsError(f"the double of the aws provider does not know the type {type_}")
    return KINDS[type_]


def _suffix(urn: str) -> str:
    return hashlib.sha256(urn.encode()).hexdigest()[:7]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


@contextmanager
def _failures(context: grpc.ServicerContext, what: str) -> Iterator[None]:
    try:
        yield
    except AwsError as error:
        context.abort(grpc.StatusCode.UNKNOWN, f"1 error occurred:\n\t* {what}: {error}\n\n")


@contextmanager
def served(double: AwsDouble) -> Iterator[int]:
    """The port of the plugin while it runs."""
    server = grpc.server(futures.ThreadPoolExecutor(16), options=LOCAL)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(double, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()
