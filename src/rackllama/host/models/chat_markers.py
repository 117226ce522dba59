"""The markers between the messages of a chat: which texts are one token of a model, and which only look like one."""

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import FrozenSet, List, Optional

from ..lander import gguf

THINKING = ("<think>", "</think>")

# Types of tokens in a GGUF.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
# What llama.cpp ends an answer at wherever a vocabulary has it, whatever the header says of it (src/llama-vocab.cpp).
ENDS = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<|eom_id|>"),
        *("<|endoftext|>", "<|end_of_text|>", "<|tool_response>", "<end_of_turn>", "<end_of_utterance>", "<turn|>"),
        *("</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~["),
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    )
)
# What looks like a marker: between bars (U+FF5C is a full-width one), in angle brackets, in square brackets.
MARKER = re.compile(r"<[|\uff5c][^<>\n]{1,80}?[|\uff5c]>|</?[^\s<>/]{1,80}>|\[/?[|\uff5c]?[A-Za-z_]{2,40}[|\uff5c]?\]")
_BARRED = re.compile(r"[<\[]/?[|\uff5c]|[|\uff5c][>\]]")
# In the markers of chats, and in none of those for padding, filling-in and what is reserved.
_CHAT_WORDS = ("user", "assistant", "turn", "inst", "header", "start")


@dataclass(frozen=True)
class Fault:
    """What is wrong in few words, and what to do."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Vocabulary:
    """What the header of the weights says that a template must fit.

    `special` are the texts that the engine finds in a prompt as one token, `normal` the other tokens that look like
    markers, `ends` the tokens that an answer ends at, `template` the model's own chat template, if it has one.
    """

    special: FrozenSet[str]
    normal: FrozenSet[str]
    ends: FrozenSet[str]
    template: str

    @property
    def has_chat_markers(self) -> bool:
        """Whether the model was given tokens for chats at all."""
        markers = filter(MARKER.fullmatch, self.special)
        return any(word in _key(marker) for marker in markers for word in _CHAT_WORDS)

    def tokens_in(self, text: str) -> List[str]:
        """The special tokens in a text as the engine finds them, the longest first; each once, in their order."""
        there = sorted((token for token in self.special if token in text), key=len, reverse=True)
        return list(dict.fromkeys(re.findall("|".join(map(re.escape, there)), text))) if there else []

    def foreign_in(self, text: str) -> List[str]:
        """What looks like a marker in a text and is no special token; each once, in their order."""
        for token in sorted(self.tokens_in(text), key=len, reverse=True):
            text = text.replace(token, "\n")
        return [marker for marker in dict.fromkeys(MARKER.findall(text)) if marker not in THINKING]

    def markers_in(self, text: str) -> List[str]:
        """Both of them but for what does not look like a marker, as white space that is a token; without thinking."""
        own = [token for token in self.tokens_in(text) if MARKER.fullmatch(token) and token not in THINKING]
        return sorted([*own, *self.foreign_in(text)], key=text.index)

    def look_alike(self, marker: str) -> Optional[str]:
        """The special token that is written nearly as `marker` is: other bars, case, or signs between words."""
        if marker in self.special or not MARKER.fullmatch(marker):
            return None
        alike = [token for token in self.special if _key(token) == _key(marker) and MARKER.fullmatch(token)]
        return max(alike, key=lambda token: difflib.SequenceMatcher(None, token, marker).ratio(), default=None)

    def fault_of(self, marker: str, where: str = "") -> Optional[Fault]:
        """What is wrong with a marker that is no special token; None where it may well be meant as text."""
        if marker in self.normal and _BARRED.search(marker):
            remedy = "take another conversion of this model: its GGUF does not mark this token as a special one"
            return Fault(f"{marker}{where} is a token that the engine does not look for", remedy)
        if marker in self.template:
            return None
        alike = self.look_alike(marker)
        if alike:
            return Fault(f"{marker}{where} is plain text to this model, whose token is {alike}", rewrite(marker, alike))
        if self.has_chat_markers and (_BARRED.search(marker) or marker in ENDS):
            or_not = ", or leave it out so that the GGUF's own template is used" if self.template else ""
            remedy = f"write the TEMPLATE with the markers that this model was trained on{or_not}"
            return Fault(f"{marker}{where} is plain text to this model, which has other markers", remedy)
        return None


def read_vocabulary(header: gguf.Header) -> Vocabulary:
    """What the header says of tokens. One without types of tokens counts all that look like markers as special."""
    tokens = header.get("tokenizer.ggml.tokens", ())
    types = header.get("tokenizer.ggml.token_type")
    if types is None:
        types = [USER_DEFINED if MARKER.fullmatch(token) else NORMAL for token in tokens]
    special = {token for token, type_ in zip(tokens, types) if type_ in (UNKNOWN, CONTROL, USER_DEFINED)}
    normal = {token for token, type_ in zip(tokens, types) if type_ == NORMAL and MARKER.fullmatch(token)}
    ids = (header.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom"))
    ends = ENDS & (special | normal) | {tokens[number] for number in ids if number is not None and number < len(tokens)}
    if "<|return|>" in ends and "<|call|>" in ends:  # Harmony, as llama.cpp has it: <|end|> ends a message, not a turn
        special, ends = special | {"<|end|>"}, ends - {"<|end|>"}
    special = special | ends
    return Vocabulary(
        special=frozenset(token for token in special if len(token) > 1),
        normal=frozenset(normal - special),
        ends=frozenset(ends),
        template=str(header.get("tokenizer.chat_template", "")),
    )


def rewrite(marker: str, alike: str) -> str:
    """What to do about a look-alike; signs that are hard to tell apart are named by their code points."""
    signs = dict.fromkeys(sign for sign in alike if sign not in marker and not sign.isascii())
    named = ", ".join(f"{sign} is U+{ord(sign):04X} {unicodedata.name(sign, '')}".rstrip() for sign in signs)
    return f"write {alike} in place of {marker} in the Modelfile" + (f" ({named})" if named else "")


def _key(marker: str) -> str:
    """The same for all ways to write a marker; that of an end differs from that of its beginning."""
    slash = "/" if marker[1:2] == "/" else ""
    return slash + "".join(sign for sign in unicodedata.normalize("NFKC", marker).lower() if sign.isalnum())
