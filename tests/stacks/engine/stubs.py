"""The gRPC stubs of the SDK without the SDK above them, which takes half a second to import, in every command."""

import importlib.util
import sys
from types import ModuleType


def import_alone() -> None:
    """Let `pulumi.runtime.proto` be imported alone in this process, which runs no program."""
    spec = importlib.util.find_spec("pulumi")
    assert spec
    assert spec.submodule_search_locations
    folder = spec.submodule_search_locations[0]
    for name, path in (("pulumi", folder), ("pulumi.runtime", f"{folder}/runtime")):
        module = ModuleType(name)
        module.__path__ = [path]
        sys.modules[name] = module
