"""Whether a served model is spoken to as it was taught: its chat template, the markers in it, the roles and the stops.

A template that is wrong raises no error. Markers that are not the model's own tokens reach it as prose, and it answers,
only worse. So a chat of known words is rendered by the running server, and what lies between those words is held
against the vocabulary in the header of the weights; then one short answer is generated. docs/templates.md tells why
each check judges as it does.
"""

import ast
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Iterable, List, Mapping, Optional

from ..errors import RackllamaError
from ..lander import gguf
from ..report import Check
from .chat_markers import THINKING, Fault, Vocabulary, read_vocabulary, rewrite
from .ollama import Chat, Ollama

# What is said in the chat that is rendered: words that no template has of its own.
SYSTEM, FIRST, REPLY, SECOND = "rackllama-system", "rackllama-first", "rackllama-reply", "rackllama-second"
CHAT = [
    {"role": role, "content": words}
    for role, words in (("system", SYSTEM), ("user", FIRST), ("assistant", REPLY), ("user", SECOND))
]
QUESTION = "Say hello."
REASONING_QUESTION = "How many of the numbers 3, 8, 12, 15 and 22 are even?"  # some think only where there is need
ANSWER_TOKENS = 256

NO_TEMPLATE = "{{ .Prompt }}"  # what Ollama takes where a Modelfile has none


@dataclass(frozen=True)
class Joints:
    """What a template writes around the messages of a chat: before the user's first words, and after each message."""

    opening: str
    to_assistant: str
    to_user: str
    ending: str

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join((self.opening, self.to_assistant, self.to_user, self.ending))


def conformance_checks(name: str, server: Ollama, weights: Path, reasoning: bool) -> List[Check]:
    """The checks of the model that `server` has as `name`, whose GGUF lies at `weights`; of that the header is read.

    Four of how it is spoken to, one of its answer, and one more where it is a `reasoning` model, which must think. It
    generates ANSWER_TOKENS at most. What fails on the way is a check that is not ok; nothing is raised.
    """
    try:
        vocabulary = read_vocabulary(gguf.from_file(weights))
        shown = server.show(name)
        template = written_template(shown)
        joints = _joints(name, server)
        as_served = server.render(name, [{"role": "user", "content": FIRST}])
        as_written = server.render_with(name, template, FIRST)
        question = REASONING_QUESTION if reasoning else QUESTION
        answer = server.chat(name, question, {"num_predict": ANSWER_TOKENS, "temperature": 0, "seed": 1})
    except RackllamaError as error:
        return [Check(f"{name} answers", False, "an answer to a chat", error.message, error.remedy)]
    except OSError as error:
        remedy = "converge again: playbooks/site.yml; the header of the weights is read as root"
        return [Check(f"{name} answers", False, "weights that can be read", str(error), remedy)]
    in_force = template_in_force(shown, vocabulary.template, as_served == as_written)
    idle = as_written if template != NO_TEMPLATE and as_served != as_written else ""
    checks = [
        Check(f"{name} has a chat template", True, "one in force", in_force),
        markers_check(name, joints.text if joints else as_served, idle, vocabulary),
        roles_check(name, joints),
        stops_check(name, joints, stop_parameters(shown), answer, vocabulary),
        answer_check(name, answer),
    ]
    return [*checks, thinking_check(name, joints, answer)] if reasoning else checks


def written_template(shown: Mapping[str, Any]) -> str:
    """The Modelfile's TEMPLATE, from what the server shows of a model; NO_TEMPLATE where it has none."""
    found = re.search(r'^TEMPLATE (?:"""(.*?)"""|"([^"]*)"$|([^\n]*))', shown["modelfile"], re.DOTALL | re.MULTILINE)
    return next((text for text in found.groups() if text is not None), NO_TEMPLATE) if found else NO_TEMPLATE


def stop_parameters(shown: Mapping[str, Any]) -> List[str]:
    """The Modelfile's `stop` parameters, from what the server shows of a model: Go's string literals, one a line."""
    found = re.findall(r'^stop +(".*")$', shown.get("parameters", ""), re.MULTILINE)
    return [str(ast.literal_eval(literal)) for literal in found]


def template_in_force(shown: Mapping[str, Any], own: str, renders_as_written: bool) -> str:
    """In words, which template the server renders chats with; `own` is the GGUF's.

    `renders_as_written` tells whether it rendered a chat to what the Modelfile's TEMPLATE, forced on it, makes of it.
    The two can agree by chance; then what the server shows as the model's template decides.
    """
    outside_of_texts = re.sub(r'"""[\s\S]*?"""|"[^"]*"', "", shown["modelfile"])
    builtin = re.findall(r"^(RENDERER|PARSER) (\S+)", outside_of_texts, re.MULTILINE)
    named = " and ".join(f"{kind.lower()} {value}" for kind, value in builtin)
    if any(kind == "RENDERER" for kind, _ in builtin):
        return f"Ollama's own: {named}"
    if renders_as_written and (not own or shown.get("template") != own):
        unused = ", not the GGUF's own" if own else ""
        return f"the Modelfile's TEMPLATE{unused}" + (f", with Ollama's own {named}" if named else "")
    if own:
        unused = ", not the Modelfile's TEMPLATE" if written_template(shown) != NO_TEMPLATE else ""
        return f"the GGUF's own{unused}"
    return "the engine's ChatML, as neither the GGUF nor the Modelfile has one"


def joints_of(rendered: str) -> Optional[Joints]:
    """What stands around the messages of CHAT, wherever the system's words stand; None where a message is lost."""
    said = (FIRST, REPLY, SECOND)
    places = [rendered.find(words) for words in said]
    if any(rendered.count(words) != 1 for words in said) or places != sorted(places):
        return None
    return Joints(*re.split("|".join(said), rendered.replace(SYSTEM, "")))


def markers_check(name: str, text: str, idle: str, vocabulary: Vocabulary) -> Check:
    """Whether what looks like a marker is a token. `text` is what the template in force writes around messages.

    `idle` is a prompt by the Modelfile's TEMPLATE where that is not in force: there only look-alikes are faults, as the
    day comes when it is used.
    """
    foreign = vocabulary.foreign_in(text)
    sleeping = [marker for marker in vocabulary.foreign_in(idle) if vocabulary.look_alike(marker)]
    where = " in the TEMPLATE, which is not in force,"
    faults = [
        *filter(None, (vocabulary.fault_of(marker) for marker in foreign)),
        *filter(None, (vocabulary.fault_of(marker, where) for marker in sleeping if marker not in foreign)),
    ]
    tokens = [marker for marker in vocabulary.markers_in(text) if marker not in foreign]
    as_text = f"as plain text {_listed(foreign)}" if foreign else ""
    found = "; ".join(filter(None, (_listed(tokens), as_text))) or "plain words, no markers"
    return _check(f"{name} has its own markers", "each is one token of this model", found, faults)


def roles_check(name: str, joints: Optional[Joints]) -> Check:
    """Whether the user's words and the model's are told apart, and the prompt ends where the model is to speak."""
    remedy = "mend the TEMPLATE: range over .Messages, and write before each role's words what the model knows it by"
    faults = []
    if joints is None:
        faults.append(Fault("a message of the chat is lost, or out of its order", remedy))
    elif joints.to_assistant.strip() == joints.to_user.strip():
        faults.append(Fault(f"{joints.to_user!r} before the user's words and the model's alike", remedy))
    elif not _opens_answer(joints):
        ending = f"end the TEMPLATE with what comes before the model's words, as in {joints.to_assistant!r}"
        faults.append(Fault(f"{joints.ending!r} at the prompt's end", ending))
    found = f"{joints.to_user!r} before the user, {joints.ending!r} at the end" if joints else ""
    return _check(f"{name} keeps roles apart", "user and model told apart", found, faults)


def stops_check(name: str, joints: Optional[Joints], stops: List[str], answer: Chat, vocabulary: Vocabulary) -> Check:
    """Whether an answer ends where a turn does: by what is written, and by one real answer."""
    alikes = [(stop, vocabulary.look_alike(stop)) for stop in stops]
    faults = [
        Fault(f"the parameter stop {stop} is not {alike}", rewrite(stop, alike)) for stop, alike in alikes if alike
    ]
    after = joints.to_user if joints else ""
    ends = [end for end in dict.fromkeys((*stops, *sorted(vocabulary.ends))) if end in after]
    markers = vocabulary.markers_in(after)
    # One marker alone is the user's: nothing is written at a turn's end then, and the model ends it by its own token.
    if not ends and len(markers) > 1 and "<|return|>" not in vocabulary.ends:
        first = markers[0]
        remedy = "first mend the markers" if vocabulary.fault_of(first) else f"add: PARAMETER stop {first}"
        faults.append(Fault(f"a turn ends with {first}, and an answer would not", remedy))
    faults += _passed_over(joints, answer, vocabulary)
    how = {"stop": "it stopped by itself", "length": f"no marker in {ANSWER_TOKENS} tokens"}
    end = f"a turn ends with {_listed(ends)}" if ends else "a turn ends with the model's own end token"
    found = f"{how.get(answer.done_reason, 'the engine broke it off, as it repeated itself')}; {end}"
    return _check(f"{name} stops", "an answer ends where a turn does, without markers", found, faults)


def answer_check(name: str, answer: Chat) -> Check:
    """Whether there were tokens, and how fast they came."""
    rate = f"{answer.tokens} tokens, {answer.tokens_per_second:.1f} tok/s"
    some = answer.tokens > 0 or bool(answer.text)
    return Check(f"{name} answers", some, "tokens", rate, "" if some else "see: journalctl -u ollama")


def thinking_check(name: str, joints: Optional[Joints], answer: Chat) -> Check:
    """Whether a reasoning model thought: the engine told it apart, or the text has it, or the prompt had begun it."""
    begun = joints is not None and joints.ending.rstrip().endswith(THINKING[0])
    went_on = begun and bool(answer.text.strip()) and not answer.text.lstrip().startswith(THINKING[1])
    thought = bool(answer.thinking.strip()) or any(tag in answer.text for tag in THINKING) or went_on
    faults = (
        []
        if thought
        else [
            Fault(
                f"none in {answer.tokens} tokens",
                "leave TEMPLATE out so that the GGUF's own is used, or end it with what comes before the model's words",
            )
        ]
    )
    return _check(f"{name} thinks", "a thinking block", "told apart" if answer.thinking else "in the text", faults)


def _joints(name: str, server: Ollama) -> Optional[Joints]:
    """Those of CHAT as the server renders it; without the system's words where the template refuses such a role."""
    try:
        return joints_of(server.render(name, CHAT))
    except RackllamaError:
        return joints_of(server.render(name, CHAT[1:]))


def _opens_answer(joints: Joints) -> bool:
    """Whether the prompt ends as what comes before the model's words begins, for longer than the user's does."""
    before = joints.to_assistant

    def shared(text: str) -> int:
        return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(text, before))))

    return shared(joints.ending) > shared(joints.to_user) or joints.ending.strip() == before.strip()


def _passed_over(joints: Optional[Joints], answer: Chat, vocabulary: Vocabulary) -> List[Fault]:
    """Markers in an answer; where it did not stop, also what comes before the user's words, markers or not."""
    if joints is None:
        return []
    text = answer.thinking + answer.text
    leaked = [marker for marker in vocabulary.markers_in(joints.text) if marker in text]
    remedy = "mend the TEMPLATE, and name in the Modelfile what ends a turn: PARAMETER stop"
    if leaked:
        return [Fault(f"the answer has {_listed(leaked)} in it", remedy)]
    if answer.done_reason != "stop" and joints.to_user.strip() and joints.to_user in text:
        return [Fault(f"the answer went on past {joints.to_user!r}", remedy)]
    return []


def _check(id_: str, wanted: str, found: str, faults: List[Fault]) -> Check:
    if not faults:
        return Check(id_, True, wanted, found)
    return Check(id_, False, wanted, _joined(fault.what for fault in faults), _joined(fault.remedy for fault in faults))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _listed(texts: List[str]) -> str:
    return " ".join(repr(text) if text.isspace() else text for text in texts)
