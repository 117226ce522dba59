"""Which files of a repository or folder a quantization names."""

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.landing.shard_sets import chosen


def shards(stem: str, count: int) -> list[str]:
    return [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


IQ1_M = shards("DeepSeek-R1-UD-IQ1_M/DeepSeek-R1-UD-IQ1_M", 4)
REPOSITORY = [
    *IQ1_M,
    *shards("DeepSeek-R1-Q4_K_M/DeepSeek-R1-Q4_K_M", 9),
    *shards("Q8_0/DeepSeek-R1", 15),
    "DeepSeek-R1.BF16.gguf",
    "mmproj-BF16.gguf",
    "imatrix_unsloth.gguf",
    "config.json",
    "README.md",
]


def refusal(paths: list[str], wanted: str | None) -> RackllamaError:
    with pytest.raises(RackllamaError) as refused:
        chosen(paths, wanted, "revision main of a/b")
    return refused.value


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("UD-IQ1_M", IQ1_M),
        ("ud-iq1_m", IQ1_M),
        ("IQ1_M", IQ1_M),
        (IQ1_M[0], IQ1_M),
        (IQ1_M[2], IQ1_M),
        ("Q8_0", shards("Q8_0/DeepSeek-R1", 15)),
        ("BF16", ["DeepSeek-R1.BF16.gguf"]),
        ("mmproj-BF16.gguf", ["mmproj-BF16.gguf"]),
    ],
)
def test_a_quantization_or_a_path_names_all_shards_of_a_model(wanted, meant):
    assert chosen(REPOSITORY, wanted, "it") == meant


def test_the_one_model_of_a_folder_needs_no_name():
    assert chosen([*shards("tiny", 2), "mmproj-f16.gguf", "notes.txt"], None, "it") == shards("tiny", 2)


def test_a_plain_quantization_is_not_its_dynamic_form():
    both = ["r1-Q4_K_M.gguf", "r1-UD-Q4_K_M.gguf"]
    assert chosen(both, "Q4_K_M", "it") == both[:1]
    assert chosen(both, "UD-Q4_K_M", "it") == both[1:]


@pytest.mark.parametrize("wanted", ["Q4_K", "K_M", "R1-Q5_K_M"])
def test_a_part_of_a_quantization_is_none(wanted):
    assert refusal(REPOSITORY, wanted).message == f"revision main of a/b has no model for {wanted}"


def test_what_there_is_gets_listed_by_first_shards():
    told = refusal(REPOSITORY, "Q2_K").remedy
    assert IQ1_M[0] in told
    assert IQ1_M[1] not in told
    assert "DeepSeek-R1.BF16.gguf" in told
    assert "mmproj" not in told


def test_several_are_told_apart_by_path():
    again = [*shards("old/r1-Q8_0", 2), *shards("new/r1-Q8_0", 3)]
    failure = refusal(again, "Q8_0")
    assert failure.message == "revision main of a/b has several models for Q8_0"
    assert failure.remedy == "name one of: new/r1-Q8_0-00001-of-00003.gguf, old/r1-Q8_0-00001-of-00002.gguf"
    assert chosen(again, "old/r1-Q8_0-00001-of-00002.gguf", "it") == again[:2]
    assert "several" in refusal([*shards("r1-Q8_0", 2), *shards("r1-Q8_0", 3)], "Q8_0").message


def test_nothing_there():
    assert refusal(["README.md"], None).remedy == "choose another: it has no model as GGUF"


def test_a_shard_is_missing():
    assert refusal(IQ1_M[1:], "UD-IQ1_M").message == f"revision main of a/b lacks {IQ1_M[0]}"
