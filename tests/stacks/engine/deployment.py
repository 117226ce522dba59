"""The steps of one operation on one stack: what is to be made, changed, replaced or deleted, and doing it."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from .providers import DYNAMIC, Diff, Plugins, Provider, ProviderError
from .state import ROOT, Resource
from .values import UNKNOWN, Properties, secret, unwrapped, with_ignored

Step = str  # "create", "update", "replace", "delete", "same"


class StepFailed(Exception):  # noqa: N818
    """A step failed, and its diagnostic has been reported."""


@dataclass(frozen=True)
class Wanted:
    """A resource as the program registers it."""

    type: str
    name: str
    custom: bool
    parent: str
    inputs: Properties
    provider: str = ""
    version: str = ""
    protect: bool = False
    retain: bool = False
    dependencies: tuple[str, ...] = ()
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    delete_first: bool | None = None
    ignore: tuple[str, ...] = ()
    replace_on: tuple[str, ...] = ()
    secret_outputs: tuple[str, ...] = ()


@dataclass
class Deployment:
    """One operation. `olds` is the state before; `news` has what is registered, read or refreshed since.

    With `preview` nothing is made and nothing saved. `report(urn, severity, message)` takes diagnostics,
    `show(urn, step)` each step that begins, and `save` the resources after each step that ended.
    """

    project: str
    stack: str
    config: dict[str, str]
    secret_keys: set[str]
    plugins: Plugins
    preview: bool
    report: Callable[[str, str, str], None]
    show: Callable[[str, str], None]
    save: Callable[[list[Resource]], None]
    olds: dict[str, Resource] = field(default_factory=dict)
    pending: list[Resource] = field(default_factory=list)
    news: dict[str, Resource] = field(default_factory=dict)
    counts: Counter[Step] = field(default_factory=Counter)
    failed: bool = False
    order: dict[tuple[str, str], int] = field(default_factory=dict)
    replacing: set[str] = field(default_factory=set)
    planning: threading.RLock = field(default_factory=threading.RLock)
    saving: threading.RLock = field(default_factory=threading.RLock)

    def begin(self, resources: Iterable[Resource]) -> None:
        """Start from a state."""
        for position, resource in enumerate(resources):
            self.order[resource.urn, resource.id] = position
            if resource.delete:
                self.pending.append(resource)
            else:
                self.olds[resource.urn] = resource

    # What there is.

    def resources(self) -> list[Resource]:
        """The state as it is now, each resource after what it uses."""
        return [*self.news.values(), *self._left()]

    def _left(self) -> list[Resource]:
        kept = [old for urn, old in self.olds.items() if urn not in self.news]
        return sorted([*kept, *self.pending], key=lambda old: self.order[old.urn, old.id])

    def urn(self, type_: str, name: str, parent: str) -> str:
        """The URN of a resource with that parent."""
        parent_type = parent.split("::")[2] if parent else ""
        qualified = type_ if parent_type in {"", ROOT} else f"{parent_type}${type_}"
        return f"urn:pulumi:{self.stack}::{self.project}::{qualified}::{name}"

    def _done(self, resource: Resource, step: Step) -> Resource:
        with self.saving:
            self.news[resource.urn] = resource
            if not resource.is_default_provider:
                self.counts[step] += 1
            if not self.preview:
                self.save(self.resources())
        return resource

    def fail(self, urn: str, message: str) -> StepFailed:
        """Report a failure, after which no further step begins."""
        self.failed = True
        self.report(urn, "error", message)
        return StepFailed(message)

    # Registering.

    def register(self, wanted: Wanted) -> Resource:
        """Bring one resource to what is wanted; StepFailed where that fails or something failed before."""
        urn = self.urn(wanted.type, wanted.name, wanted.parent)
        with self.planning:
            if self.failed:
                raise StepFailed(urn)
            if urn in self.news:
                raise self.fail(urn, f"Duplicate resource URN '{urn}'; try giving it a unique name")
            reference = self.provider_reference(wanted) if wanted.custom else ""
            try:
                finish = self._plan(urn, wanted, reference)
            except ProviderError as error:
                raise self.fail(urn, str(error)) from error
        try:
            return finish()
        except ProviderError as error:
            raise self.fail(urn, str(error)) from error

    def _plan(self, urn: str, wanted: Wanted, reference: str) -> Callable[[], Resource]:
        old = self.olds.get(urn)
        inputs = with_ignored(wanted.inputs, old.inputs, list(wanted.ignore)) if old else wanted.inputs
        provider = self.provider(reference) if reference else None
        if provider:
            inputs, failures = provider.check(urn, old.inputs if old else {}, inputs)
            for _, reason in failures:
                self.fail(urn, f"{wanted.type} resource '{wanted.name}' has a problem: {reason}")
            if failures:
                raise StepFailed(urn)
        new = Resource(
            urn=urn,
            type=wanted.type,
            custom=wanted.custom,
            inputs=inputs,
            parent=wanted.parent,
            protect=wanted.protect,
            dependencies=sorted(set(wanted.dependencies)),
            provider=reference,
            propertyDependencies={key: urns for key, urns in wanted.property_dependencies.items() if urns},
            additionalSecretOutputs=list(wanted.secret_outputs),
            retainOnDelete=wanted.retain,
        )
        if old is None or old.external:
            return lambda: self._create(new, provider, "replace" if urn in self.replacing else "create")
        diff = self._diff(old, new, provider, wanted)
        if diff.replaces:
            return self._plan_replace(old, new, provider, diff, wanted)
        if diff.changed:
            return lambda: self._update(old, new, provider, wanted)
        self._reuse(old, new)
        return lambda: self._done(new, "same")

    def _diff(self, old: Resource, new: Resource, provider: Provider | None, wanted: Wanted) -> Diff:
        if new.is_provider or provider is None:
            return Diff(unwrapped(old.inputs) != unwrapped(new.inputs))
        if _provider_moved(old.provider, new.provider):
            return Diff(True, ("provider",))
        diff = provider.diff(old, new.inputs, list(wanted.ignore))
        again = tuple(key for key in wanted.replace_on if key in {*diff.keys, "*"} and diff.changed)
        return replace(diff, replaces=diff.replaces + again)

    def _reuse(self, old: Resource, new: Resource) -> None:
        new.id, new.outputs = old.id, old.outputs

    def _create(self, new: Resource, provider: Provider | None, step: Step) -> Resource:
        self.show(new.urn, step)
        if new.is_provider:
            new.id, new.outputs = (UNKNOWN if self.preview else str(uuid.uuid4())), new.inputs
        elif provider:
            new.id, outputs = provider.create(new.urn, new.inputs, self.preview)
            new.outputs = _with_secrets(outputs, new.additionalSecretOutputs)
        return self._done(new, step)

    def _update(self, old: Resource, new: Resource, provider: Provider | None, wanted: Wanted) -> Resource:
        self.show(new.urn, "update")
        self._reuse(old, new)
        if new.is_provider:
            new.outputs = new.inputs
            self.plugins.configured.pop(f"{new.urn}::{new.id}", None)
        elif provider:
            outputs = provider.update(old, new.inputs, list(wanted.ignore), self.preview)
            new.outputs = _with_secrets(outputs, new.additionalSecretOutputs)
        return self._done(new, "update")

    def _plan_replace(
        self, old: Resource, new: Resource, provider: Provider | None, diff: Diff, wanted: Wanted
    ) -> Callable[[], Resource]:
        if old.protect and new.protect:
            raise self.fail(
                new.urn,
                f'unable to replace resource "{new.urn}"\nas it is currently marked for protection. To unprotect the '
                "resource, remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`",
            )
        delete_first = diff.delete_first if wanted.delete_first is None else wanted.delete_first
        if delete_first:
            for dependent in reversed([old, *self._replaced_with(old)]):
                self.replacing.add(dependent.urn)
                self._delete(dependent)
        else:
            self.replacing.add(old.urn)
            with self.saving:
                self.pending.append(replace(old, delete=True))
                del self.olds[old.urn]
        return lambda: self._create(new, provider, "replace")

    def _replaced_with(self, root: Resource) -> list[Resource]:
        """What must go before `root` is deleted, as an input that changes with it needs a new resource."""
        gone, doomed = {root.urn}, []
        for old in self.olds.values():
            changing = {key for key, urns in old.propertyDependencies.items() if gone & set(urns)}
            if not old.custom or old.is_provider or not changing:
                continue
            inputs = {key: UNKNOWN if key in changing else value for key, value in old.inputs.items()}
            if self.provider(old.provider).diff(old, inputs, []).replaces:
                gone.add(old.urn)
                doomed.append(old)
        return doomed

    # Providers.

    def provider_reference(self, wanted: Wanted) -> str:
        """`URN::id` of the provider of a resource; a default one is registered where the program names none."""
        if wanted.type.startswith("pulumi:providers:") or wanted.provider:
            return wanted.provider
        package = wanted.type.split(":", 1)[0]
        name = "_".join(["default", *wanted.version.split(".")]) if wanted.version else "default"
        type_ = f"pulumi:providers:{package}"
        found = self.news.get(self.urn(type_, name, ""))
        if not found:
            inputs = {"version": wanted.version} if wanted.version else {}
            found = self.register(Wanted(type_, name, True, "", inputs | self._package_config(package)))
        return f"{found.urn}::{found.id}"

    def _package_config(self, package: str) -> Properties:
        """A provider gets the configuration of its package; dynamic providers get all of it, by full keys."""
        chosen = {
            key if package == DYNAMIC else key.split(":", 1)[1]: secret(value) if key in self.secret_keys else value
            for key, value in self.config.items()
            if package == DYNAMIC or key.startswith(f"{package}:")
        }
        return dict(chosen)

    def provider(self, reference: str) -> Provider:
        """The provider of a reference."""
        urn = reference.rsplit("::", 1)[0]
        resource = self.news.get(urn) or self.olds[urn]
        package = resource.type.removeprefix("pulumi:providers:")
        return self.plugins.provider(
            reference, package, {key: value for key, value in resource.inputs.items() if key != "version"}
        )

    # Reading, deleting, refreshing.

    def read(self, wanted: Wanted, id_: str) -> Resource:
        """Read what is not of this stack."""
        urn = self.urn(wanted.type, wanted.name, wanted.parent)
        with self.planning:
            if self.failed:
                raise StepFailed(urn)
            try:
                reference = self.provider_reference(wanted)
                found, inputs, outputs = self.provider(reference).read(urn, id_, wanted.inputs, {})
            except ProviderError as error:
                raise self.fail(urn, str(error)) from error
            if not found:
                raise self.fail(urn, f"resource '{id_}' does not exist")
        outputs = _with_secrets(outputs, list(wanted.secret_outputs))
        resource = Resource(
            urn, wanted.type, True, found, inputs=inputs, outputs=outputs, parent=wanted.parent, external=True
        )
        resource.provider, resource.dependencies = reference, sorted(set(wanted.dependencies))
        return self._done(resource, "read")

    def register_outputs(self, urn: str, outputs: Properties) -> None:
        """Keep what a component, or the stack itself, puts out."""
        with self.saving:
            self.news[urn].outputs = outputs
            if not self.preview:
                self.save(self.resources())

    def delete_left(self) -> None:
        """Delete what was not registered, and what was replaced; the last made first."""
        for old in reversed(self._left()):
            try:
                self._delete(old)
            except ProviderError as error:
                raise self.fail(old.urn, f"deleting {old.urn}: {error}") from error

    def _delete(self, old: Resource) -> None:
        if old.protect and not old.delete:
            raise self.fail(
                old.urn,
                f'resource "{old.urn}" cannot be deleted\nbecause it is protected. To unprotect the resource, either '
                "remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`, or use the "
                f"command:\n`pulumi state unprotect '{old.urn}'`",
            )
        real = old.custom and not (old.is_provider or old.external or old.retainOnDelete)
        if not old.is_default_provider:
            self.show(old.urn, "delete")
        if real and not self.preview:
            self.provider(old.provider).delete(old)
        with self.saving:
            if old.urn not in self.replacing and not old.is_default_provider and not old.external:
                self.counts["delete"] += 1
            if old in self.pending:
                self.pending.remove(old)
            else:
                del self.olds[old.urn]
            if not self.preview:
                self.save(self.resources())

    def refresh(self) -> None:
        """Make the state what the providers find."""
        for old in list(self.olds.values()):
            if not old.custom or old.is_provider:
                self._done(old, "same")
                continue
            try:
                id_, inputs, outputs = self.provider(old.provider).read(old.urn, old.id, old.inputs, old.outputs)
            except ProviderError as error:
                raise self.fail(old.urn, str(error)) from error
            if id_:
                outputs = _with_secrets(outputs, old.additionalSecretOutputs)
                changed = (inputs, outputs) != (old.inputs, old.outputs)
                self._done(replace(old, id=id_, inputs=inputs, outputs=outputs), "update" if changed else "same")
                continue
            self.show(old.urn, "delete")
            with self.saving:
                self.counts["delete"] += 1
                del self.olds[old.urn]
                for other in self.olds.values():
                    other.forget(old.urn)
                if not self.preview:
                    self.save(self.resources())

    def refresh_first(self) -> None:
        """Refresh, and begin the operation from what was found; saved like any step, so not in a preview."""
        self.refresh()
        found = self.resources()
        for kept in (self.olds, self.pending, self.news, self.counts, self.order):
            kept.clear()
        self.begin(found)


def _with_secrets(outputs: Properties, names: list[str]) -> Properties:
    return {key: secret(value) if key in names else value for key, value in outputs.items()}


def _provider_moved(old: str, new: str) -> bool:
    """Whether a resource went to another provider than a newer version of its default one."""
    names = [reference.rsplit("::", 2)[-2] for reference in (old, new)]
    return old.rsplit("::", 1)[0] != new.rsplit("::", 1)[0] and not all(name.startswith("default") for name in names)
