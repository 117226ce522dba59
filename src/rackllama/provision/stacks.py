"""A Pulumi stack, driven by the CLI's own command line: up with other zones tried, the playbooks, down, what is up."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rackllama.host.errors import RackllamaError
from rackllama.lab.machine import last_lines, say
from rackllama.lab.up import CHECKOUT
from rackllama.provision.capacity_failures import find_shortages, remedy, words, zone_order
from rackllama.provision.pulumi_cli import PulumiCli, chosen_backend, find_pulumi, pulumi_environment
from rackllama.provision.stack_outputs import SECRET, ask
from rackllama.provision.state import INSTANCE, VOLUME, Resource, State, state_of

PLAYBOOK = "playbooks/site.yml"
ANSWER_SECONDS = 120
HELD_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What Pulumi says of state in files, and of state in Pulumi Cloud.
LOCKED = ("the stack is currently locked by", "Another update is currently in progress")


class InterruptedStackError(RackllamaError):
    """The user ended a program in the middle. It was waited for, so that it could leave things in order."""


@dataclass(frozen=True)
class Ended:
    """How a program ended, and all that it said where that was kept."""

    code: int
    said: str = ""


@dataclass(frozen=True)
class Stack:
    """One stack of a project: its folder, its name, and what runs it."""

    folder: Path
    name: str
    cli: PulumiCli
    environment: Mapping[str, str] = field(repr=False)

    @property
    def project(self) -> str:
        """The name that `rackllama stack` knows the project by: that of its folder."""
        return self.folder.name

    @property
    def backend(self) -> str:
        """Where its state is kept."""
        return chosen_backend(self.environment, self.folder)

    def __str__(self) -> str:
        return f"{self.project} ({self.name})"

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command line of a `pulumi` command about this stack."""
        return [str(self.cli.path), *command, "--stack", self.name, "--non-interactive", "--color", "never"]

    def read(self, *command: str) -> str:
        """What a `pulumi` command prints. Raises RackllamaError with the end of what it says where it fails."""
        code, said, complaint = self._ask(self.argv(command))
        if code:
            raise RackllamaError(
                f"`pulumi {' '.join(command)}` of the stack {self} fails: {last_lines(complaint or said)}",
                f"to see all of it: {self.by_hand(' '.join(command))}",
            )
        return said

    def _ask(self, argv: Sequence[str]) -> tuple[int, str, str]:
        return ask_in(self.folder, argv, self.environment)

    def exists(self) -> bool:
        """Whether there is such a stack."""
        return any(is_named(stack["name"], self.name) for stack in self._listed())

    def select(self) -> None:
        """Make the stack, empty, if there is none, and let plain `pulumi` in its folder mean this one."""
        argv = [str(self.cli.path), "stack", "select", self.name, "--create", "--non-interactive", "--color", "never"]
        code, _, complaint = self._ask(argv)
        if code:
            raise RackllamaError(
                f"the stack {self} cannot be used: {last_lines(complaint)}",
                "give the backend's login or passphrase, or unset PULUMI_BACKEND_URL and `pulumi logout` to keep state "
                "in files of yours",
            )

    def stream(self, *command: str) -> Ended:
        """Run a `pulumi` command, showing what it says as it comes. Raises RackllamaError where the stack is locked."""
        ended = run_shown(self.argv(command), self.folder, self.environment)
        if ended.code and any(words in ended.said for words in LOCKED):
            raise RackllamaError(
                f"the stack {self} is locked: another run goes on, or one was ended before it could unlock it",
                f"wait for the other; where there is none: {self.by_hand('cancel --yes')}",
            )
        return ended

    def by_hand(self, command: str) -> str:
        """The command line with which a person runs a `pulumi` command about this stack."""
        return f'eval "$(rackllama stack env)"; pulumi {command} --stack {self.name} --cwd stacks/{self.project}'

    def outputs(self) -> dict[str, Any]:
        """What the stack exports, without what is secret."""
        exported = json.loads(self.read("stack", "output", "--json"))
        return {name: value for name, value in exported.items() if value != SECRET}

    def state(self) -> State:
        """What is in its state, and what may exist beside it."""
        return state_of(json.loads(self.read("stack", "export")))

    def resources(self) -> list[Resource]:
        """The resources in its state."""
        return list(self.state().resources)

    def config(self) -> dict[str, Any]:
        """The stack's configuration with its project's defaults, by key without the project's name; no secrets."""
        entries = json.loads(self.read("config", "--json"))
        return {
            key.split(":", 1)[1]: entry.get("objectValue", entry.get("value"))
            for key, entry in entries.items()
            if key.split(":", 1)[0] == self._pulumi_project
        }

    def set_zone(self, zone: str | None) -> None:
        """Write the zone into the stack's configuration, or take it out."""
        self.read(*(["config", "rm", "zone"] if zone is None else ["config", "set", "zone", zone]))

    @property
    def _pulumi_project(self) -> str:
        return str(yaml.safe_load((self.folder / "Pulumi.yaml").read_text(encoding="utf-8"))["name"])

    def _listed(self) -> list[dict[str, Any]]:
        return list_stacks(self.folder, self.cli, self.environment)


def projects(root: Path) -> list[str]:
    """The projects of a checkout, by name."""
    return sorted(path.parent.name for path in (root / "stacks").glob("*/Pulumi.yaml"))


def open_stack(project: str, name: str, root: Path, environment: Mapping[str, str]) -> Stack:
    """The stack of that name of one of the checkout's projects, whether it exists or not.

    Raises RackllamaError for a project that there is none of, and where there is no Pulumi CLI that suits.
    """
    if project not in projects(root):
        raise RackllamaError(f"there is no stack {project!r}", f"choose one of: {', '.join(projects(root))}")
    cli, folder = find_pulumi(environment), root / "stacks" / project
    return Stack(folder, name, cli, pulumi_environment(environment, cli, folder))


def open_stacks(root: Path, environment: Mapping[str, str]) -> list[Stack]:
    """Every stack that there is, of every project."""
    cli = find_pulumi(environment)
    folders = [root / "stacks" / project for project in projects(root)]
    return [
        Stack(folder, stack["name"], cli, own)
        for folder, own in [(folder, pulumi_environment(environment, cli, folder)) for folder in folders]
        for stack in list_stacks(folder, cli, own)
    ]


def list_stacks(folder: Path, cli: PulumiCli, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """What `pulumi stack ls` tells of a project's stacks. Raises RackllamaError where the backend cannot be asked."""
    argv = [str(cli.path), "stack", "ls", "--json", "--non-interactive"]
    code, said, complaint = ask_in(folder, argv, environment)
    if code:
        raise RackllamaError(
            f"the stacks of {folder.name} cannot be listed: {last_lines(complaint)}",
            "make `pulumi whoami` work, or `pulumi logout` to keep state in files of yours",
        )
    return list(json.loads(said))


def ask_in(folder: Path, argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a `pulumi` that reads. Raises RackllamaError where it does not answer."""
    code, said, complaint = ask(argv, environment, ANSWER_SECONDS, folder)
    if code is None:
        raise RackllamaError(
            f"pulumi has not answered for {folder.name} in {ANSWER_SECONDS} s, and was ended",
            "see whether the backend that keeps its state can be reached: pulumi whoami --verbose",
        )
    return code, said, complaint


def is_named(listed: str, name: str) -> bool:
    """Whether a stack listed as `[ORG/[PROJECT/]]STACK` is the one named so; either may lack its organisation."""
    (*org, stack), (*wanted_org, wanted) = listed.split("/"), name.split("/")
    return stack == wanted and (not org or not wanted_org or org[0] == wanted_org[0])


def bring_up(stack: Stack, *, refresh: bool = False) -> None:
    """`pulumi up`, again in the next of the configured `zones` where AWS has no capacity in one.

    With `refresh`, the providers are asked first what there is.

    Raises RackllamaError where it fails otherwise, and where no zone is left: the configuration is then as it was.
    """
    config = stack.config()
    order = zone_order(config.get("zones") or [], config.get("zone"))
    before = stack.resources()
    kept = {resource.id for resource in before}
    tried: list[str] = []
    new_volumes: dict[str, Resource] = {}
    for zone in order or [""]:
        if tried:
            say(f"\ntrying {zone} instead")
            stack.set_zone(zone)
        ended = stack.stream("up", "--yes", "--skip-preview", *(["--refresh"] if refresh else []))
        after = stack.resources()
        shortages = find_shortages(ended.said) if ended.code else []
        if not shortages and (left := left_words(new_volumes, after)):
            say(left)
        if ended.code == 0:
            return
        if not shortages:
            raise RackllamaError(
                f"`pulumi up` of the stack {stack} failed, as it says above; what was made before is in its state",
                f"mend it and run again: rackllama stack up {stack.project}; or remove it all: rackllama stack down "
                f"{stack.project}",
            )
        tried.append(zone)
        say(f"\n{words(shortages, zone)}")
        new_volumes |= {one.id: one for one in after if one.type == VOLUME and one.id not in kept}
        tied = tied_to_zone(before, after)
        if tied or not all(shortage.meaning.elsewhere for shortage in shortages):
            break
    if len(tried) > 1:
        stack.set_zone(config.get("zone") or None)
    others = [zone for zone in order if zone not in tried]
    held = f"; {', '.join(others)} not tried, as {tied} cannot follow there" if tied and others else ""
    billed = [running_words(after, stack.project), left_words(new_volumes, after)]
    raise RackllamaError(
        "; ".join(
            [
                f"no capacity for the stack {stack} in {', '.join(filter(None, tried)) or 'its zone'}{held}",
                *filter(None, billed),
            ]
        ),
        remedy(shortages) + ("" if order else "; or name zones to try: pulumi config set --path 'zones[0]' ZONE"),
    )


def running_words(after: Sequence[Resource], project: str) -> str:
    """That hosts were made all the same, in words. Empty where there are none."""
    hosts = ", ".join(resource.name for resource in after if resource.type == INSTANCE)
    return f"running and billed: {hosts}; to end that: rackllama stack down {project}" if hosts else ""


def left_words(new_volumes: Mapping[str, Resource], after: Sequence[Resource]) -> str:
    """Which volumes, made and given up on the way, Pulumi retained and forgot. Empty where there are none.

    They are empty of models, as nothing but an `up` that ends well is followed by the playbooks.
    """
    there = {resource.id for resource in after}
    left = [id_ for id_ in new_volumes if id_ not in there]
    commands = "; ".join(f"aws ec2 delete-volume --volume-id {id_}" for id_ in left)
    return f"billed on, empty, and no more in the state: {', '.join(left)}; to remove it: {commands}" if left else ""


def tied_to_zone(before: Sequence[Resource], after: Sequence[Resource]) -> str:
    """What another zone would take from this one: a host or a volume that was there before. Empty where nothing.

    A volume made a moment ago is empty, and ties nothing.
    """
    there = {resource.urn for resource in before if resource.type in {INSTANCE, VOLUME}}
    return ", ".join(resource.name for resource in after if resource.urn in there)


def converge(stack: Stack, root: Path = CHECKOUT) -> None:
    """Wait for the stack's hosts and run playbooks/site.yml on them. Raises RackllamaError where that fails."""
    inventory = inventory_of(stack.project, root)
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", inventory, PLAYBOOK]
    environment = {**stack.environment, "RACKLLAMA_STACK": stack.name}
    ended = run_shown(argv, root, environment, keep=False)
    if ended.code:
        raise RackllamaError(
            f"the hosts of the stack {stack} are up, and their converge failed as told above",
            f"mend it and run again: rackllama stack up {stack.project}; or only the playbook: "
            f"RACKLLAMA_STACK={stack.name} ansible-playbook -i {inventory} playbooks/site.yml",
        )


def inventory_of(project: str, root: Path) -> str:
    """The folder of the inventory that reads a project's stacks, relative to the checkout.

    Raises RackllamaError where there is none.
    """
    for path in sorted((root / "inventories").glob("*/*.pulumi.yml")):
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
        if (path.parent / described["project"]).resolve() == (root / "stacks" / project).resolve():
            return str(path.parent.relative_to(root))
    raise RackllamaError(
        f"no inventory reads the stacks of {project}",
        f"write one, inventories/{project}/{project}.pulumi.yml, with `project: ../../stacks/{project}`",
    )


def run_shown(argv: Sequence[str], cwd: Path, environment: Mapping[str, str], *, keep: bool = True) -> Ended:
    """Run a program, showing what it says as it comes, and keeping it as well; without `keep` it has the terminal.

    What would end this process (Ctrl-C, a hang-up, `kill`) is handed to the program, which ends its own way: it is
    waited for, and then InterruptedStackError is raised. Where nobody reads what is shown any more, it goes on unseen.
    """
    said = []
    with (
        _signals_for(keep) as held,
        subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE if keep else None,
            stderr=subprocess.STDOUT if keep else None,
            start_new_session=keep,  # so that it gets each signal once, from here: a second one ends Pulumi at once
        ) as program,
    ):
        held.hand_to(program)
        for line in program.stdout or ():
            said.append(line)
            _show(line)
        code = program.wait()
    if held.seen:
        raise InterruptedStackError(
            f"{Path(argv[0]).name} was interrupted; what it made is in the stack's state, and may be billed; "
            "what it was making may exist without being there",
            "see `rackllama stack list`, which names such things; go on with the same command, or remove it all by "
            "`rackllama stack down`",
        )
    return Ended(code, "".join(said))


def _show(line: str) -> None:
    """Print it. Where the reader is gone, all output goes nowhere from then on."""
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@dataclass
class _Held:
    """Signals that came, and the program that they are handed to; with `apart` it gets none from the terminal."""

    apart: bool
    seen: list[int] = field(default_factory=list)
    program: subprocess.Popen[str] | None = None

    def hand_to(self, program: subprocess.Popen[str]) -> None:
        """Hand on what came, and what will come."""
        self.program = program
        for number in self.seen:
            self._hand_on(number)

    def came(self, number: int, _frame: object) -> None:
        """Take a signal."""
        self.seen.append(number)
        self._hand_on(number)

    def _hand_on(self, number: int) -> None:
        if self.program and (self.apart or number != signal.SIGINT):
            self.program.send_signal(signal.SIGINT if self.apart else number)  # Pulumi ends in order by SIGINT


@contextmanager
def _signals_for(apart: bool) -> Iterator[_Held]:
    """The signals that come meanwhile, which end nothing here. A handler is not inherited, as ignoring would be."""
    held = _Held(apart)
    before = {number: signal.signal(number, held.came) for number in HELD_SIGNALS}
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
