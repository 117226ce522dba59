"""What is said of a model's chat template, on the depot's real Ollama: the depot's Gemma, and a small made-up DeepSeek.

The made-up model stands in for DeepSeek-R1. It has R1's markers in its vocabulary, llama.cpp loads it as it loads any
other model, and its weights say for each token which one comes next; what it shows of R1 is the markers and no more.

Needs a filled depot (`make depot`) and some 1.5 GB in the folder of temporary files.
"""

import hashlib
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rackllama.catalog.models import read_catalogue
from rackllama.host.lander.gguf import ARRAY, BOOL, FLOAT32, INT32, STRING, UINT32
from rackllama.host.models.conformance import conformance_checks
from rackllama.host.models.ollama_store import OllamaStore
from rackllama.host.report import Check
from rackllama.lab.depot.depot import default_depot
from rackllama.lab.depot.recipes import GEMMA, LLAMA_CPP
from rackllama.mirror.lock import find, in_shard_order, read_lock

from ..unit.gguf_files import Entry, Model, Tensor
from .conftest import OllamaServer, depot_archive, running_ollama

CATALOGUE = read_catalogue()
GEMMA_IT = CATALOGUE["gemma3-270m-it"].template
R1_PARAMETERS = dict(CATALOGUE["deepseek-r1"].parameters)

BEGIN, END = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"
USER, ASSISTANT = "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
TO_ASCII = str.maketrans("\uff5c\u2581", "|_")
# DeepSeek's template for Ollama, as it ought to be written.
WRITTEN_TEMPLATE = (
    "{{ if .System }}{{ .System }}{{ end }}{{ range $i, $_ := .Messages }}"
    "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    '{{ if eq .Role "user" }}' + USER + "{{ .Content }}{{ if $last }}" + ASSISTANT + "{{ end }}"
    '{{ else if eq .Role "assistant" }}' + ASSISTANT + "{{ .Content }}" + END + "{{ end }}{{ end }}"
)
COPIED_TEMPLATE = WRITTEN_TEMPLATE.translate(TO_ASCII)
# The model's own, in Jinja: a plain one.
OWN_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}" + USER + "{{ m.content }}"
    "{% elif m.role == 'assistant' %}" + ASSISTANT + "{{ m.content }}" + END + "{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)
# DeepSeek's own has this, and Ollama takes a template that has it for one that can do more than a TEMPLATE.
CUTS_THINKING = "{% if false %}{{ content.split('</think>') }}{% endif %}"

CONTROL, USER_DEFINED, UNKNOWN, BYTE, NORMAL = 3, 4, 2, 6, 1
TOKENS = {
    "<unk>": UNKNOWN,
    BEGIN: CONTROL,
    END: CONTROL,
    **{f"<0x{byte:02X}>": BYTE for byte in range(256)},
    **{chr(sign): NORMAL for sign in range(33, 127)},
    "\u2581": NORMAL,
    "<|": NORMAL,
    "|>": NORMAL,
    USER: USER_DEFINED,
    ASSISTANT: USER_DEFINED,
    "<think>": USER_DEFINED,
    "</think>": USER_DEFINED,
}
# After its own marker it thinks, answers and ends; after a bar of ASCII it goes on as if it read a chat.
NEXT = {ASSISTANT: "<think>", "<think>": "H", "H": "m", "m": "</think>", "</think>": "3", "3": END} | {
    "|>": "<|",
    "<|": "U",
    "U": "s",
    "s": "e",
    "e": "r",
    "r": "|>",
}
WIDTH = 384  # one number for each token, and a multiple of what llama.cpp splits heads into


@dataclass(frozen=True)
class Weights(Tensor):
    """A tensor of 32-bit numbers: `ones` are the places, in all of it, that hold `value`; the others hold 0."""

    ones: tuple[int, ...] = ()
    value: float = 1.0

    @property
    def data(self) -> bytes:
        numbers = [0.0] * (self.size // 4)
        for place in self.ones:
            numbers[place] = self.value
        return struct.pack(f"<{len(numbers)}f", *numbers)


def made_up_deepseek(chat_template: str = "") -> Model:
    """A llama whose only layer does nothing: each token is embedded as itself, and asks for the one in NEXT."""
    tokens, types = list(TOKENS), list(TOKENS.values())
    number = {token: place for place, token in enumerate(tokens)}
    square = (WIDTH, WIDTH)
    entries = [
        Entry("general.architecture", STRING, "llama"),
        *(
            Entry(f"llama.{key}", UINT32, value)
            for key, value in {
                "context_length": 4096,
                "embedding_length": WIDTH,
                "block_count": 1,
                "feed_forward_length": WIDTH,
                "attention.head_count": 6,
                "attention.head_count_kv": 6,
                "rope.dimension_count": WIDTH // 6,
                "vocab_size": len(tokens),
            }.items()
        ),
        Entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-6),
        Entry("tokenizer.ggml.model", STRING, "llama"),
        Entry("tokenizer.ggml.pre", STRING, "default"),
        Entry("tokenizer.ggml.tokens", ARRAY, tokens, STRING),
        Entry("tokenizer.ggml.scores", ARRAY, [0.0] * len(tokens), FLOAT32),
        Entry("tokenizer.ggml.token_type", ARRAY, types, INT32),
        Entry("tokenizer.ggml.bos_token_id", UINT32, number[BEGIN]),
        Entry("tokenizer.ggml.eos_token_id", UINT32, number[END]),
        Entry("tokenizer.ggml.unknown_token_id", UINT32, 0),
        Entry("tokenizer.ggml.add_bos_token", BOOL, 1),
        Entry("tokenizer.ggml.add_space_prefix", BOOL, 0),
        *([Entry("tokenizer.chat_template", STRING, chat_template)] if chat_template else []),
    ]
    follows = tuple(number[after] * WIDTH + number[token] for token, after in NEXT.items())
    embedded = tuple(place * WIDTH + place for place in range(len(tokens)))
    ones = tuple(range(WIDTH))
    return Model(
        entries,
        [
            Weights("token_embd.weight", (WIDTH, len(tokens)), ones=embedded),
            Weights("output_norm.weight", (WIDTH,), ones=ones),
            Weights("output.weight", (WIDTH, len(tokens)), ones=follows),
            Weights("blk.0.attn_norm.weight", (WIDTH,), ones=ones),
            Weights("blk.0.ffn_norm.weight", (WIDTH,), ones=ones),
            *(
                Weights(f"blk.0.{name}.weight", square)
                for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
            ),
        ],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the servers here share; it does not stay."""
    folder = tmp_path_factory.mktemp("conformance")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(ollama_program: Path, folder: Path) -> Iterator[OllamaServer]:
    with running_ollama(ollama_program, folder) as server:
        yield server


@pytest.fixture(scope="module")
def gemma(server: OllamaServer, folder: Path) -> Path:
    """The depot's model, merged, in the server's store; its bare model is `gemma`."""
    depot = default_depot()
    shards = in_shard_order(find(read_lock(depot.lock_path), GEMMA.name).files)
    subprocess.run(["tar", "-xf", depot_archive(LLAMA_CPP.name), "-C", folder], check=True)
    tool, whole = folder / LLAMA_CPP.folder / "llama-gguf-split", folder / "gemma.gguf"
    first = depot.mirror_root / shards[0].mirror_path
    subprocess.run([tool, "--merge", first, whole], check=True, capture_output=True)
    return stored(server, "gemma", whole)


def stored(server: OllamaServer, name: str, weights: Path) -> Path:
    """Put weights into a server's store, as a model that is nothing else; gives their blob."""
    with weights.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    store = OllamaStore(server.models_dir)
    store.prepare()
    store.adopt(weights, digest)
    store.write_bare_model(name, digest)
    store.release(weights)
    return store.blob(digest)


def deepseek(server: OllamaServer, chat_template: str = "") -> Path:
    """The made-up model, with a chat template of its own or none, as `deepseek`."""
    path = server.models_dir.parent / "deepseek.gguf"
    path.write_bytes(made_up_deepseek(chat_template).file)
    return stored(server, "deepseek", path)


@pytest.fixture
def checked(server: OllamaServer, gemma: Path) -> Callable[..., dict[str, Check]]:
    """The checks of Gemma by their ids, with a Modelfile of these settings."""

    def check(**settings: object) -> dict[str, Check]:
        return checks_of(server, gemma, "gemma", **settings)

    return check


def checks_of(
    server: OllamaServer, weights: Path, base: str, reasoning: bool = False, **settings: object
) -> dict[str, Check]:
    """The checks by their ids, of a model `tried` that is made from `base` with a Modelfile of these settings."""
    server.api.create("tried", {"from": base, **settings})
    return {check.id.partition(" ")[2]: check for check in conformance_checks("tried", server.api, weights, reasoning)}


def failed(checks: dict[str, Check]) -> list[str]:
    return [id_ for id_, check in checks.items() if not check.ok]


def test_the_catalogues_own_template_of_a_pretrained_model(checked):
    entry = CATALOGUE["gemma3-270m"]
    checks = checked(template=entry.template, parameters=dict(entry.parameters))
    assert failed(checks) == []
    assert checks["has its own markers"].found == "plain words, no markers"
    assert checks["has a chat template"].found == "the Modelfile's TEMPLATE"
    assert checks["stops"].found == r"it stopped by itself; a turn ends with '\n'"


def test_markers_that_are_tokens_even_of_a_model_that_was_not_taught_them(checked):
    checks = checked(template=GEMMA_IT, parameters={"stop": ["<end_of_turn>"]})
    assert failed(checks) == []
    assert checks["has its own markers"].found == "<start_of_turn> <end_of_turn>"


def test_a_look_alike_is_named(checked):
    template = GEMMA_IT.replace("_of_turn>", "_of_turn|>").replace("<start", "<|start").replace("<end", "<|end")
    checks = checked(template=template, parameters={"stop": ["<|end_of_turn|>"]})
    assert failed(checks) == ["has its own markers", "stops"]
    assert "write <start_of_turn> in place of <|start_of_turn|>" in checks["has its own markers"].remedy
    assert checks["stops"].found == "the parameter stop <|end_of_turn|> is not <end_of_turn>"


def test_another_models_template(checked):
    checks = checked(template=COPIED_TEMPLATE)
    assert failed(checks)[0] == "has its own markers"
    assert "<|User|> is plain text to this model, which has other markers" in checks["has its own markers"].found


def test_no_template_at_all_is_chatml_which_this_model_does_not_know(checked):
    checks = checked()
    assert checks["has a chat template"].found.startswith("the engine's ChatML")
    assert failed(checks) == ["has its own markers", "stops"]
    assert "the answer has <|im_start|> <|im_end|> in it" in checks["stops"].found


def test_words_without_roles(checked):
    assert "keeps roles apart" in failed(checked(template="{{ .Prompt }}"))


def test_deepseek_by_the_catalogue(server):
    """It leaves the template to the GGUF."""
    weights = deepseek(server, OWN_TEMPLATE + CUTS_THINKING)
    checks = checks_of(server, weights, "deepseek", reasoning=True, parameters=R1_PARAMETERS)
    assert failed(checks) == []
    assert checks["has a chat template"].found == "the GGUF's own"
    assert checks["has its own markers"].found == f"{USER} {ASSISTANT} {END}"
    assert checks["stops"].found.startswith("it stopped by itself")
    assert server.api.chat("tried", "Is it so?").thinking == "Hm"


def test_deepseek_by_a_right_template(server):
    checks = checks_of(server, deepseek(server), "deepseek", reasoning=True, template=WRITTEN_TEMPLATE)
    assert failed(checks) == []
    assert checks["has its own markers"].found == f"{USER} {ASSISTANT} {END}"
    assert server.api.chat("tried", "Is it so?").text == "<think>Hm</think>3"


def test_the_much_copied_modelfile_of_deepseek(server):
    checks = checks_of(server, deepseek(server), "deepseek", reasoning=True, template=COPIED_TEMPLATE)
    assert failed(checks) == ["has its own markers", "stops", "thinks"]
    assert f"write {USER} in place of <|User|>" in checks["has its own markers"].remedy
    assert "\uff5c is U+FF5C FULLWIDTH VERTICAL LINE" in checks["has its own markers"].remedy
    assert "the answer has <|User|> in it" in checks["stops"].found


def test_it_is_no_better_with_stop_parameters_that_hide_it(server):
    stops = [stop.translate(TO_ASCII) for stop in R1_PARAMETERS["stop"]]
    checks = checks_of(server, deepseek(server), "deepseek", template=COPIED_TEMPLATE, parameters={"stop": stops})
    assert failed(checks) == ["has its own markers", "stops"]
    assert f"the parameter stop <|User|> is not {USER}" in checks["stops"].found


def test_a_template_in_the_gguf_does_not_hide_it_either(server):
    weights = deepseek(server, OWN_TEMPLATE + CUTS_THINKING)
    checks = checks_of(server, weights, "deepseek", reasoning=True, template=COPIED_TEMPLATE)
    assert checks["has a chat template"].found == OWN
    assert failed(checks) == ["has its own markers"]
    assert "<|User|> in the TEMPLATE, which is not in force, is plain text" in checks["has its own markers"].found


OWN, WRITTEN = "the GGUF's own, not the Modelfile's TEMPLATE", "the Modelfile's TEMPLATE, not the GGUF's own"


@pytest.mark.parametrize("can_do_more", [False, True], ids=["a plain one in the GGUF", "one that can do more"])
@pytest.mark.parametrize("go_template", [None, "0", "1"], ids=["unset", "0", "1"])
def test_which_template_is_in_force(ollama_program, tmp_path, go_template, can_do_more):
    """By what is rendered: the TEMPLATE here writes `Mark:` before the user's words, and the GGUF's own does not."""
    wish = {"OLLAMA_GO_TEMPLATE": go_template} if go_template else {}
    with running_ollama(ollama_program, tmp_path, **wish) as server:
        weights = deepseek(server, OWN_TEMPLATE + CUTS_THINKING * can_do_more)
        checks = checks_of(server, weights, "deepseek", template=WRITTEN_TEMPLATE.replace(USER, f"{USER}Mark: "))
        is_written = "Mark: " in server.api.render("tried", [{"role": "user", "content": "Is it so?"}])
    assert checks["has a chat template"].found == (WRITTEN if is_written else OWN)
    assert is_written == (go_template == "1" or (go_template is None and not can_do_more))
