"""The services that a program's SDK talks to, ResourceMonitor and Engine, over one deployment."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, resource_pb2, resource_pb2_grpc

from .deployment import Deployment, StepFailed, Wanted
from .providers import LOCAL, ProviderError
from .values import UNKNOWN, from_struct, to_struct

SUPPORTED = [resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS, resource_pb2.RESOURCE_MONITOR_FEATURE_INVOKE_DEPENDS_ON]
# What a program may ask for and the double cannot do: refused by name, so that nobody takes it for done.
UNSUPPORTED = ["remote", "importId", "deletedWith", "replace_with", "transforms", "packageRef"]


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """Registers resources and calls functions."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def GetDeploymentInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Which of the SDK's features there are."""
        return resource_pb2.DeploymentInfo(
            project=self.deployment.project, stack=self.deployment.stack, supportedFeatures=SUPPORTED
        )

    def RegisterResource(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Make, change, replace or leave one resource."""
        for name in UNSUPPORTED:
            if getattr(request, name):
                message = f"the test double of the engine does not support {name}, asked for by {request.name}"
                self.deployment.fail(self.deployment.urn(request.type, request.name, request.parent), message)
        # pulumi-aws gives some types the names of old ones; that says nothing while no state has such a one.
        if known := [urn for urn in request.aliasURNs if urn in self.deployment.olds]:
            message = f"the test double of the engine does not support aliases, and {known[0]} is in the state"
            self.deployment.fail(self.deployment.urn(request.type, request.name, request.parent), message)
        wanted = Wanted(
            type=request.type,
            name=request.name,
            custom=request.custom,
            parent=request.parent,
            inputs=from_struct(request.object),
            provider=request.provider,
            version=request.version,
            protect=request.protect,
            retain=request.retainOnDelete,
            dependencies=tuple(request.dependencies),
            property_dependencies={key: sorted(set(row.urns)) for key, row in request.propertyDependencies.items()},
            delete_first=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
            ignore=tuple(request.ignoreChanges),
            replace_on=tuple(request.replaceOnChanges),
            secret_outputs=tuple(request.additionalSecretOutputs),
        )
        with _failures(context):
            made = self.deployment.register(wanted)
        return resource_pb2.RegisterResourceResponse(
            urn=made.urn, id="" if made.id == UNKNOWN else made.id, object=to_struct(made.outputs)
        )

    def RegisterResourceOutputs(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        """Keep the outputs of a component."""
        self.deployment.register_outputs(request.urn, from_struct(request.outputs))
        return empty_pb2.Empty()

    def ReadResource(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Read a resource that the stack does not own."""
        wanted = Wanted(
            type=request.type,
            name=request.name,
            custom=True,
            parent=request.parent,
            inputs=from_struct(request.properties),
            provider=request.provider,
            version=request.version,
            dependencies=tuple(request.dependencies),
            secret_outputs=tuple(request.additionalSecretOutputs),
        )
        with _failures(context):
            made = self.deployment.read(wanted, request.id)
        return resource_pb2.ReadResourceResponse(urn=made.urn, id=made.id, properties=to_struct(made.outputs))

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Call a function of a provider, unless it waits for what a preview does not make."""
        deployment = self.deployment
        waits_for = [deployment.news[urn] for urn in request.dependsOn if urn in deployment.news]
        if deployment.preview and any(resource.custom and resource.id in {"", UNKNOWN} for resource in waits_for):
            return resource_pb2.ResourceInvokeResponse(unknown=True)
        wanted = Wanted(request.tok, "", True, "", {}, request.provider, request.version)
        with _failures(context):
            reference = deployment.provider_reference(wanted)
            answer = deployment.provider(reference).invoke(request.tok, from_struct(request.args), deployment.preview)
        response = resource_pb2.ResourceInvokeResponse(failures=answer.failures)
        getattr(response, "return").CopyFrom(getattr(answer, "return"))
        return response

    def SignalAndWaitForShutdown(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        """A program may end whenever it is done: deleting does not need it."""
        return empty_pb2.Empty()


class Engine(engine_pb2_grpc.EngineServicer):
    """Takes log messages and keeps the root resource."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self.root = deployment, ""

    def Log(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        """Show a message of the program. An error is a failure of the whole."""
        severity = {1: "info", 2: "warning", 3: "error"}.get(request.severity)
        if severity and not request.ephemeral:
            self.deployment.report(request.urn, severity, request.message)
        return empty_pb2.Empty()

    def GetRootResource(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """The stack's URN."""
        return engine_pb2.GetRootResourceResponse(urn=self.root)

    def SetRootResource(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Keep the stack's URN."""
        self.root = request.urn
        return engine_pb2.SetRootResourceResponse()

    def RequirePulumiVersion(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Any version is met, as the double has none."""
        return engine_pb2.RequirePulumiVersionResponse()


@contextmanager
def _failures(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except ProviderError as error:
        _abort(context, grpc.StatusCode.UNKNOWN, str(error))
    except StepFailed:
        # The SDK takes this for an engine that ended, and stops the program.
        _abort(context, grpc.StatusCode.UNAVAILABLE, "resource monitor shut down")


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError


@contextmanager
def served(deployment: Deployment, parallel: int = 64) -> Iterator[str]:
    """The address of both services while they run."""
    server = grpc.server(futures.ThreadPoolExecutor(parallel), options=LOCAL)
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(Monitor(deployment), server)
    engine_pb2_grpc.add_EngineServicer_to_server(Engine(deployment), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
