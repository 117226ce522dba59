"""From a bare machine to an answer: the depot, a lab, the playbook that every site runs, and one real question."""

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.host.models.ollama import Chat
from rackllama.lab import hosts
from rackllama.lab.depot.depot import fill
from rackllama.lab.depot.progress import Progress, Step
from rackllama.lab.depot.server import ensure_serving, stop_serving
from rackllama.lab.gateway import through_gateway
from rackllama.paths import state_dir

CHECKOUT = Path(__file__).resolve().parents[3]
OLLAMA_PORT = 11434
QUESTION = "What is the capital of France? Answer in one sentence."
ANSWER_OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 64}
_TASK = re.compile(r"(?:TASK|PLAY|RUNNING HANDLER) \[(.*)\]")
_RECAP = re.compile(r"^(?P<host>\S+)\s*: ok=\d+\s+changed=(?P<changed>\d+)", re.MULTILINE)


@dataclass
class Stopwatch:
    """What took how long, in order; shows each step as it goes on."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time one step, shown with a count of its own."""
        with self.part(name), self.progress.step(name) as step:
            yield step

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part that shows its own steps."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - started


@dataclass(frozen=True)
class Converged:
    """What a converge changed: tasks by host."""

    changed: dict[str, int]

    @property
    def words(self) -> str:
        """In words."""
        if not any(self.changed.values()):
            return "nothing changed"
        return ", ".join(f"{count} tasks changed {host}" for host, count in self.changed.items())


def start_lab(name: str, count: int, suite: str, watch: Stopwatch, devices: Sequence[str] = ()) -> hosts.Lab:
    """Have a lab that can be converged: the depot filled, the hosts booted, the depot served to them."""
    with watch.part("depot"):
        fill(watch.progress)
    with watch.part("hosts"):
        lab = hosts.start(name, count, suite, devices)
        ensure_serving(hosts.network_gateway())
    return lab


def stop_lab(name: str) -> bool:
    """Remove a lab, and with the last one the depot's server. Whether there was such a lab."""
    if {lab.name for lab in hosts.labs()} <= {name}:
        stop_serving()  # before the network goes, and the server's address with it
    return hosts.stop(name)


def up(name: str, count: int, suite: str, progress: Progress) -> str:
    """Do all of it; the result is question, answer, rate, times and what to type next, to be shown."""
    watch = Stopwatch(progress)
    lab = start_lab(name, count, suite, watch)
    with watch.step("converge") as step:
        converged = converge(name, lambda tasks: setattr(step, "count", f"{tasks} tasks"))
    host = lab.hosts[0]
    with watch.step("answer"):
        model, chat = ask(lab, host)
    return summary(host, model, chat, converged, watch)


def start_converge(lab: str, *arguments: str, new_session: bool = False) -> "subprocess.Popen[str]":
    """Start playbooks/site.yml on a lab, as `start_ansible` does."""
    return start_ansible(lab, "ansible-playbook", "playbooks/site.yml", *arguments, new_session=new_session)


def start_ansible(lab: str, program: str, *arguments: str, new_session: bool = False) -> "subprocess.Popen[str]":
    """Start a program of Ansible's on a lab; stdout carries all it says. A new session is not reached by Ctrl-C."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name(program)), "-i", "inventories/lab", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "RACKLLAMA_LAB": lab, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=new_session,
    )


def changed_tasks(said: str) -> dict[str, int]:
    """How many tasks changed each host, from the recap of what a converge said."""
    return {match["host"]: int(match["changed"]) for match in _RECAP.finditer(said)}


def converge(lab: str, on_task: Callable[[int], None]) -> Converged:
    """Run playbooks/site.yml on a lab. Raises RackllamaError with the end of what it said, where it fails."""
    log_path = state_dir() / "lab" / f"{lab}.converge.log"
    tasks = 0
    with log_path.open("w", encoding="utf-8") as log, start_converge(lab) as play:
        for line in play.stdout or ():
            log.write(line)
            if _TASK.match(line):
                tasks += 1
                on_task(tasks)
    said = log_path.read_text(encoding="utf-8")
    if play.returncode != 0:
        raise RackllamaError(
            f"the converge of {lab} failed:\n{_failure(said)}",
            f"mend what it names and run again; all of it: {log_path}",
        )
    return Converged(changed_tasks(said))


def ask(lab: hosts.Lab, host: hosts.Host, question: str = QUESTION) -> tuple[str, Chat]:
    """The name of the first model that a host serves, and its answer to the question, through its gateway."""
    with through_gateway(lab, host) as server:
        models = server.models()
        if not models:
            raise RackllamaError(f"{host.name} serves no model", "declare one in inventories/lab and converge again")
        return models[0].name, server.chat(models[0].name, question, ANSWER_OPTIONS)


def summary(host: hosts.Host, model: str, chat: Chat, converged: Converged, watch: Stopwatch) -> str:
    """What `make up` ends with."""
    steps = "\n".join(f"  {name:<12} {seconds:7.1f} s" for name, seconds in watch.seconds.items())
    return f"""
{steps}
  {"all":<12} {sum(watch.seconds.values()):7.1f} s    {converged.words}

  Q: {QUESTION}
  A: {chat.text.strip()}
     {model} at https://{host.address}: {chat.tokens} tokens at {chat.tokens_per_second:.1f} tok/s

What to type next:
  rackllama key create me    a key for https://{host.address}/v1 (docs/gateway.md)
  make verify                check what is deployed, on every host
  make shell                 log in to the first host
  make down                  remove all of it
"""


def _failure(said: str) -> str:
    """Of Ansible's output, what failed on which host: each `fatal:` with its indented result."""
    lines, failed = said.splitlines(), []
    for number, line in enumerate(lines):
        if line.startswith(("fatal:", "failed:")):
            result = itertools.takewhile(lambda following: following.startswith(" "), lines[number + 1 :])
            failed += [line, *result]
    return "\n".join(failed or lines[-15:])
