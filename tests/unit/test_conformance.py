"""What is said of rendered chats: prompts as the templates of well-known models make them, and vocabularies as theirs.

The prompts are written here after the published templates, for the chat that the checks have rendered; the vocabularies
have the tokens that matter. The real thing, on a real server, is in tests/depot/test_template_conformance.py.
"""

import socket
from pathlib import Path

import pytest

from rackllama.host.lander import gguf
from rackllama.host.lander.gguf import ARRAY, INT32, STRING, UINT32
from rackllama.host.models.chat_markers import CONTROL, NORMAL, USER_DEFINED, read_vocabulary
from rackllama.host.models.conformance import (
    NO_TEMPLATE,
    conformance_checks,
    joints_of,
    markers_check,
    roles_check,
    stop_parameters,
    stops_check,
    template_in_force,
    thinking_check,
    written_template,
)
from rackllama.host.models.ollama import Chat, Ollama

from .gguf_files import Entry, Model

S, F, R, N = "rackllama-system", "rackllama-first", "rackllama-reply", "rackllama-second"
BEGIN, END = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"
USER, ASSISTANT = "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
HELLO = Chat("Hello!", 3, 0.1, done_reason="stop")
LLAMA_2 = ["<unk>", "<s>", "</s>"]


def vocabulary(*special, eos="", template="", normal=()):
    """That of a model with these tokens; it knows `eos` for its end."""
    tokens = ["a", *special, *normal]
    types = [NORMAL, *(USER_DEFINED if token.startswith("<think") else CONTROL for token in special), *(NORMAL,) * 9]
    entries = [
        Entry("tokenizer.ggml.tokens", ARRAY, tokens, STRING),
        Entry("tokenizer.ggml.token_type", ARRAY, types[: len(tokens)], INT32),
        *([Entry("tokenizer.ggml.eos_token_id", UINT32, tokens.index(eos))] if eos else []),
        *([Entry("tokenizer.chat_template", STRING, template)] if template else []),
    ]
    return read_vocabulary(gguf.from_bytes(Model(entries).file))


def failed(rendered, words, stops=(), answer=HELLO, idle=""):
    """What is wrong, in words."""
    joints = joints_of(rendered)
    checks = [
        markers_check("m", joints.text if joints else rendered, idle, words),
        roles_check("m", joints),
        stops_check("m", joints, list(stops), answer, words),
    ]
    assert all(check.remedy for check in checks if not check.ok)
    return [check.found for check in checks if not check.ok]


LLAMA_3 = vocabulary("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", eos="<|eot_id|>")
QWEN = vocabulary("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", eos="<|im_end|>")
GEMMA = vocabulary("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<table>", eos="<eos>")
MISTRAL = vocabulary("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", eos="</s>")
R1 = vocabulary(BEGIN, END, USER, ASSISTANT, "<think>", "</think>", eos=END)
# The distillations on Qwen keep its tokens, and take the unused ones for DeepSeek's.
R1_QWEN = vocabulary("<|im_start|>", "<|im_end|>", BEGIN, END, USER, ASSISTANT, "<think>", "</think>", eos=END)
PHI_4 = vocabulary("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>", eos="<|im_end|>")
HARMONY = vocabulary(
    "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>", "<|constrain|>", eos="<|return|>"
)
GEMMA_4 = vocabulary("<bos>", "<eos>", "<|turn>", "<turn|>", eos="<eos>")
R1_CHAT = f"{BEGIN}{S}{USER}{F}{ASSISTANT}{R}{END}{USER}{N}{ASSISTANT}"
CHATML = (
    f"<|im_start|>system\n{S}<|im_end|>\n<|im_start|>user\n{F}<|im_end|>\n<|im_start|>assistant\n{R}<|im_end|>\n"
    f"<|im_start|>user\n{N}<|im_end|>\n<|im_start|>assistant\n"
)
LLAMA_3_CHAT = "<|begin_of_text|>" + "".join(
    f"<|start_header_id|>{role}<|end_header_id|>\n\n{words}"
    for role, words in (
        ("system", f"Cutting Knowledge Date: December 2023\n\n{S}<|eot_id|>"),
        ("user", f"{F}<|eot_id|>"),
        ("assistant", f"{R}<|eot_id|>"),
        ("user", f"{N}<|eot_id|>"),
        ("assistant", ""),
    )
)
ZEPHYR = f"<|system|>\n{S}</s>\n<|user|>\n{F}</s>\n<|assistant|>\n{R}</s>\n<|user|>\n{N}</s>\n<|assistant|>\n"
GEMMA_CHAT = (
    f"<bos><start_of_turn>user\n{S}\n\n{F}<end_of_turn>\n<start_of_turn>model\n{R}<end_of_turn>\n"
    f"<start_of_turn>user\n{N}<end_of_turn>\n<start_of_turn>model\n"
)


@pytest.mark.parametrize(
    ("rendered", "words"),
    [
        pytest.param(LLAMA_3_CHAT, LLAMA_3, id="Llama 3"),
        pytest.param(CHATML, QWEN, id="Qwen"),
        pytest.param(CHATML + "<think>\n\n</think>\n\n", QWEN, id="Qwen 3 that is not to think"),
        pytest.param(
            CHATML.replace(S, f"{S}\nFunction signatures are within <tools></tools> tags:"), QWEN, id="tags in prose"
        ),
        pytest.param(GEMMA_CHAT, GEMMA, id="Gemma"),
        pytest.param(
            f"<bos><|turn>user\n{F}<turn|>\n<|turn>model\n{R}<turn|>\n<|turn>user\n{N}<turn|>\n<|turn>model\n",
            GEMMA_4,
            id="Gemma 4, with one bar",
        ),
        pytest.param(
            f"<s>[INST] {F}[/INST] {R}</s>[INST] {S}\n\n{N}[/INST]",
            MISTRAL,
            id="Mistral, the system's words at the end",
        ),
        pytest.param(
            f"<s>[INST] <<SYS>>\n{S}\n<</SYS>>\n\n{F} [/INST] {R} </s><s>[INST] {N} [/INST]",
            vocabulary(*LLAMA_2, eos="</s>"),
            id="Llama 2, whose [INST] is no token",
        ),
        pytest.param(ZEPHYR, vocabulary(*LLAMA_2, eos="</s>"), id="Zephyr, whose <|user|> is no token"),
        pytest.param(
            ZEPHYR,
            vocabulary(
                *LLAMA_2, "<|start_header_id|>", eos="</s>", template="{{ '<|user|> <|assistant|> <|system|>' }}"
            ),
            id="text that the model's own template writes",
        ),
        pytest.param(R1_CHAT, R1, id="DeepSeek-R1"),
        pytest.param(f"{R1_CHAT}<think>\n", R1_QWEN, id="a distillation of it, made to think"),
        pytest.param(f"{BEGIN}{USER}{F}{ASSISTANT}</think>{R}{END}{USER}{N}{ASSISTANT}<think>", R1, id="DeepSeek-V3.1"),
        pytest.param(
            f"<|im_start|>user<|im_sep|>{F}<|im_end|><|im_start|>assistant<|im_sep|>{R}<|im_end|>"
            f"<|im_start|>user<|im_sep|>{N}<|im_end|><|im_start|>assistant<|im_sep|>",
            PHI_4,
            id="Phi 4",
        ),
        pytest.param(
            f"<|start|>system<|message|>You are ChatGPT.<|end|><|start|>developer<|message|>{S}<|end|>"
            f"<|start|>user<|message|>{F}<|end|><|start|>assistant<|channel|>final<|message|>{R}<|end|>"
            f"<|start|>user<|message|>{N}<|end|><|start|>assistant",
            HARMONY,
            id="gpt-oss, where <|end|> does not end a turn",
        ),
        pytest.param(f"{S}\n\nQuestion: {F}\nAnswer: {R}\nQuestion: {N}\nAnswer:", GEMMA, id="plain words"),
    ],
)
def test_no_false_alarm(rendered, words):
    assert failed(rendered, words) == []


def test_a_look_alike_is_named_with_its_code_points():
    ascii_chat = R1_CHAT.translate(str.maketrans("\uff5c\u2581", "|_"))
    check = markers_check("m", joints_of(ascii_chat).text, "", R1_QWEN)
    assert not check.ok
    assert f"<|User|> is plain text to this model, whose token is {USER}" in check.found
    assert (
        f"write {USER} in place of <|User|> in the Modelfile (\uff5c is U+FF5C FULLWIDTH VERTICAL LINE)" in check.remedy
    )
    assert "\u2581 is U+2581 LOWER ONE EIGHTH BLOCK" in check.remedy


@pytest.mark.parametrize(
    ("rendered", "words", "said"),
    [
        (CHATML, GEMMA, "<|im_start|> is plain text to this model, which has other markers"),
        (GEMMA_CHAT, LLAMA_3, "<end_of_turn> is plain text to this model, which has other markers"),
        (LLAMA_3_CHAT, QWEN, "<|start_header_id|> is plain text to this model, which has other markers"),
        (GEMMA_CHAT.replace("of_turn", "OF_TURN"), GEMMA, "<start_OF_TURN> is plain text"),
        (
            CHATML,
            vocabulary("<|im_end|>", eos="<|im_end|>", normal=["<|im_start|>"]),
            "<|im_start|> is a token that the engine does not look for",
        ),
    ],
    ids=["ChatML on Gemma", "Gemma on Llama 3", "Llama 3 on Qwen", "another case", "a bad conversion"],
)
def test_markers_of_other_models(rendered, words, said):
    assert said in failed(rendered, words)[0]


def test_a_look_alike_in_a_template_that_is_not_in_force():
    (said,) = failed(R1_CHAT, R1, idle=f"<|User|>{F}<|Other|>")
    assert (
        said == f"<|User|> in the TEMPLATE, which is not in force, is plain text to this model, whose token is {USER}"
    )


@pytest.mark.parametrize(
    ("rendered", "said"),
    [
        (f"{F}{R}{N}", "'' before the user's words and the model's alike"),
        (f"Text: {F}\nText: {R}\nText: {N}\nText:", "before the user's words and the model's alike"),
        (f"{USER}{N}{ASSISTANT}", "a message of the chat is lost"),
        (f"{USER}{N}{USER}{F}{ASSISTANT}{R}", "out of its order"),
        (CHATML.removesuffix("<|im_start|>assistant\n"), "'<|im_end|>\\n' at the prompt's end"),
        (CHATML.removesuffix("assistant\n") + "user\n", "at the prompt's end"),
    ],
    ids=["no roles", "one role for all", "the past is lost", "out of order", "nobody's turn", "the user's turn"],
)
def test_roles_that_are_not_kept_apart(rendered, said):
    check = roles_check("m", joints_of(rendered))
    assert not check.ok
    assert said in check.found


def test_a_turn_that_ends_with_what_does_not_end_an_answer():
    words = vocabulary("<|begin|>", "<|stop|>", "</s>", eos="</s>")
    chat = f"<|begin|>user {F}<|stop|><|begin|>model {R}<|stop|><|begin|>user {N}<|stop|><|begin|>model "
    assert failed(chat, words) == ["a turn ends with <|stop|>, and an answer would not"]
    assert failed(chat, words, stops=["<|stop|>"]) == []


def test_a_stop_parameter_that_never_comes():
    assert failed(R1_CHAT, R1, stops=["<|User|>"]) == [f"the parameter stop <|User|> is not {USER}"]
    assert failed(R1_CHAT, R1, stops=[USER, "\n\n", "Question:"]) == []


PLAIN = f"Question: {F}\nAnswer: {R}\nQuestion: {N}\nAnswer:"


@pytest.mark.parametrize(
    ("rendered", "answer", "said"),
    [
        (CHATML, Chat("Hello!<|im_end|>", 9, 1, done_reason="stop"), ["the answer has <|im_end|> in it"]),
        (CHATML, Chat("", 9, 1, "So<|im_start|>", "stop"), ["the answer has <|im_start|> in it"]),
        (CHATML, Chat("hello hello", 256, 1, done_reason="length"), []),
        (CHATML, Chat("hello hello", 31, 1, done_reason=""), []),
        (PLAIN, Chat("4\nQuestion: 5", 256, 1, done_reason="length"), [r"the answer went on past '\nQuestion: '"]),
        (PLAIN, Chat("A question: Answer: 4", 9, 1, done_reason="stop"), []),
    ],
    ids=[
        "leaked",
        "leaked while thinking",
        "babble",
        "repeated itself",
        "past a plain end",
        "plain words in an answer",
    ],
)
def test_one_real_answer(rendered, answer, said):
    assert failed(rendered, QWEN, answer=answer) == said


@pytest.mark.parametrize(
    ("answer", "ending", "thought"),
    [
        (Chat("Three.", 9, 1, thinking="3 is odd"), ASSISTANT, True),
        (Chat("<think>\n\n</think>\n\nThree.", 9, 1), ASSISTANT, True),
        (Chat("<think>3 is odd, and 8", 256, 1), ASSISTANT, True),
        (Chat("3 is odd, and 8", 256, 1), f"{ASSISTANT}<think>\n", True),
        (Chat("Three.", 9, 1), ASSISTANT, False),
        (Chat("", 1, 1), f"{ASSISTANT}<think>\n", False),
    ],
    ids=["told apart", "in the text", "cut off", "begun by the prompt", "none", "begun, and nothing came"],
)
def test_a_thinking_block(answer, ending, thought):
    check = thinking_check("m", joints_of(R1_CHAT.removesuffix(ASSISTANT) + ending), answer)
    assert check.ok is thought
    assert bool(check.remedy) is not thought


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("FROM /m/sha256-1\nTEMPLATE {{ .Prompt }}\n", NO_TEMPLATE),
        ('FROM /m\nTEMPLATE """{{ "a" }}\nb"""\nPARAMETER stop x\n', '{{ "a" }}\nb'),
        ('FROM /m\nTEMPLATE "{{ .Prompt }}\nb "\nSYSTEM "\nTEMPLATE x"\n', "{{ .Prompt }}\nb "),
        ("FROM /m\n", NO_TEMPLATE),
    ],
)
def test_the_template_of_a_shown_modelfile(text, template):
    assert written_template({"modelfile": text}) == template


def test_the_stop_parameters_of_a_shown_model():
    shown = {"parameters": 'temperature   1\nstop      "\\n"\nstop      "<\uff5cUser\uff5c>"\ntop_k     64'}
    assert stop_parameters(shown) == ["\n", USER]
    assert stop_parameters({}) == []


WRITTEN = 'FROM /m\nTEMPLATE """{{ "a" }}\n"""\n'


@pytest.mark.parametrize(
    ("shown", "own", "as_written", "said"),
    [
        ({"modelfile": WRITTEN, "template": "a"}, "", True, "the Modelfile's TEMPLATE"),
        ({"modelfile": WRITTEN, "template": "a"}, "own", True, "the Modelfile's TEMPLATE, not the GGUF's own"),
        ({"modelfile": WRITTEN, "template": "own"}, "own", False, "the GGUF's own, not the Modelfile's TEMPLATE"),
        ({"modelfile": WRITTEN, "template": "own"}, "own", True, "the GGUF's own, not the Modelfile's TEMPLATE"),
        ({"modelfile": "TEMPLATE {{ .Prompt }}", "template": "own"}, "own", False, "the GGUF's own"),
        ({"modelfile": "TEMPLATE {{ .Prompt }}"}, "", False, "the engine's ChatML, as neither"),
        (
            {"modelfile": "TEMPLATE {{ .Prompt }}\nRENDERER r\nPARSER p"},
            "own",
            False,
            "Ollama's own: renderer r and parser p",
        ),
        ({"modelfile": f"{WRITTEN}PARSER p"}, "", True, "the Modelfile's TEMPLATE, with Ollama's own parser p"),
        ({"modelfile": f'{WRITTEN}LICENSE """a "quoted"\nRENDERER none"""'}, "", True, "the Modelfile's TEMPLATE"),
    ],
)
def test_the_template_in_force(shown, own, as_written, said):
    assert template_in_force(shown, own, as_written).startswith(said)


def test_a_vocabulary_without_types_has_what_looks_like_markers():
    header = gguf.from_bytes(Model([Entry("tokenizer.ggml.tokens", ARRAY, ["a", "<|user|>", "</s>"], STRING)]).file)
    assert read_vocabulary(header).special == {"<|user|>", "</s>"}


def test_weights_that_cannot_be_read_are_a_check_that_failed():
    (check,) = conformance_checks("m", Ollama("http://127.0.0.1:9"), Path("/nowhere/m.gguf"), reasoning=False)
    assert not check.ok
    assert "No such file" in check.found


def test_a_server_that_does_not_answer_is_a_check_that_failed(tmp_path):
    weights = tmp_path / "m.gguf"
    weights.write_bytes(Model([]).file)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens not
        (check,) = conformance_checks(
            "m", Ollama(f"http://127.0.0.1:{taken.getsockname()[1]}"), weights, reasoning=False
        )
    assert not check.ok
    assert "does not answer" in check.found
    assert check.remedy == "see: systemctl status ollama"
