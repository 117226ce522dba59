"""The lock: its file, its lookups, and the lock that the project ships."""

from hashlib import sha256
from pathlib import Path

import pytest

from rackllama.catalog.models import read_catalogue, slug_of
from rackllama.host.errors import RackllamaError
from rackllama.mirror.lock import (
    Artefact,
    LockedFile,
    default_lock_path,
    in_shard_order,
    lock_text,
    read_lock,
    with_version,
    write_lock,
)
from rackllama.mirror.upstreams import ORIGINS

RELEASE = "https://github.com/ollama/ollama/releases/download"
OLLAMA = Artefact(
    "ollama",
    "0.33.0",
    "MIT",
    "github-release:ollama/ollama",
    (
        LockedFile(
            f"{RELEASE}/v0.33.0/ollama-linux-amd64.tar.zst", 4, sha256(b"amd64").hexdigest(), architecture="amd64"
        ),
        LockedFile(f"{RELEASE}/v0.33.0/ollama-linux-arm64.tar.zst", architecture="arm64"),
    ),
)


def shards(*numbers, count=3, model="R1"):
    return [LockedFile(f"https://hub.test/{model}-{number:05d}-of-{count:05d}.gguf") for number in numbers]


def test_a_host_gets_the_one_file_of_its_architecture():
    assert OLLAMA.file_for("x86_64").name == "ollama-linux-amd64.tar.zst"


def test_a_file_whose_checksum_was_never_learnt_names_the_command_that_learns_it():
    with pytest.raises(RackllamaError, match="never learnt from upstream") as caught:
        OLLAMA.file_for("aarch64")
    assert caught.value.remedy == "run: rackllama lock ollama"


def test_an_architecture_without_a_file_names_those_there_are():
    with pytest.raises(RackllamaError, match=r"no file for riscv64 in the lock \(it has: amd64, arm64\)"):
        OLLAMA.file_for("riscv64")


def test_a_model_of_several_shards_is_not_one_file():
    files = tuple(LockedFile(file.url, 1, sha256(file.url.encode()).hexdigest()) for file in shards(1, 2, 3))
    with pytest.raises(RackllamaError, match="is 3 files"):
        Artefact("r1", "main", "MIT", "huggingface:a/b", files).file_for("x86_64")


def test_a_model_known_only_by_its_pattern_is_not_locked():
    model = Artefact("r1", "main", "MIT", "huggingface:a/b", (), "R1-*.gguf")
    assert not model.is_locked
    with pytest.raises(RackllamaError, match="never learnt"):
        model.files_for()


def test_a_lock_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "artefacts.lock"
    lock = {"ollama": OLLAMA, "r1": Artefact("r1", "main", "MIT", "huggingface:a/b", (), "R1/*.gguf")}
    write_lock(path, lock)
    assert read_lock(path) == lock
    assert [entry.name for entry in tmp_path.iterdir()] == ["artefacts.lock"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a list", "not a table"),
        ("a: {version: 1", "not YAML"),
        ("a: {version: 1, licence: MIT, origin: o}", "'files'"),
        ("a: {version: 1, licence: MIT, origin: o, files: [{url: 'https://h/../x'}]}", "address that is none"),
        ("a: {version: 1, licence: MIT, origin: o, files: [{url: 'https://h/x', sha256: abc}]}", "sha256 that is none"),
        ("a: {version: 1, licence: MIT, origin: o, files: [{url: 'https://h/x', md5: abc}]}", "md5"),
    ],
)
def test_a_malformed_lock_is_told_with_its_place(tmp_path, text, complaint):
    path = tmp_path / "artefacts.lock"
    path.write_text(text)
    with pytest.raises(RackllamaError, match=complaint) as caught:
        read_lock(path)
    assert str(path) in caught.value.message


def test_another_version_rewrites_the_addresses_and_forgets_the_checksums():
    moved = with_version(OLLAMA, "0.33.1")
    assert moved.version == "0.33.1"
    assert [file.url for file in moved.files] == [
        f"{RELEASE}/v0.33.1/ollama-linux-amd64.tar.zst",
        f"{RELEASE}/v0.33.1/ollama-linux-arm64.tar.zst",
    ]
    assert not any(file.size or file.sha256 for file in moved.files)


@pytest.mark.parametrize(
    ("old", "new", "before", "after"),
    [
        ("b10488", "b10500", "https://h/b10488/llama-b10488-bin.tar.gz", "https://h/b10500/llama-b10500-bin.tar.gz"),
        (
            "main",
            "v2",
            "https://main.test/domain/resolve/main/main.gguf",
            "https://main.test/domain/resolve/v2/v2.gguf",
        ),
        ("0.3", "0.4", "https://h/0.3/a-0.33-10.3.1-0.3.tar", "https://h/0.4/a-0.33-10.3.1-0.4.tar"),
    ],
)
def test_only_the_whole_version_in_the_path_is_rewritten(old, new, before, after):
    artefact = Artefact("a", old, "MIT", "o", (LockedFile(before),))
    assert with_version(artefact, new).files[0].url == after


def test_an_address_without_its_version_cannot_be_moved():
    with pytest.raises(RackllamaError, match=r"does not contain its version 1\.0"):
        with_version(Artefact("a", "1.0", "MIT", "o", (LockedFile("https://h/a.tar"),)), "1.1")


def test_shards_are_put_in_the_order_of_their_numbers():
    assert in_shard_order(shards(3, 1, 2)) == tuple(shards(1, 2, 3))


def test_a_model_in_one_file_needs_no_shard_number():
    single = LockedFile("https://hub.test/gemma.gguf")
    assert in_shard_order([single]) == (single,)


@pytest.mark.parametrize(
    "files",
    [
        [],
        shards(1, 3),
        shards(1, 2, 2, 3),
        shards(2),
        shards(1, 2, 3) + shards(1, 2, 3, model="V3"),
        [*shards(1, 2, 3), LockedFile("https://hub.test/README.md")],
    ],
    ids=["none", "one missing", "one twice", "one alone", "two models", "something else"],
)
def test_what_is_not_all_the_shards_of_one_model_is_refused(files):
    with pytest.raises(RackllamaError, match="not all the shards of one model"):
        in_shard_order(files)


def test_the_shipped_lock_is_as_the_lock_command_writes_it():
    assert lock_text(read_lock(default_lock_path())) == default_lock_path().read_text(encoding="utf-8")


def test_each_shipped_origin_can_be_asked():
    assert {a.origin.partition(":")[0] for a in read_lock(default_lock_path()).values()} <= set(ORIGINS)


def test_each_variant_of_the_catalogue_stands_in_the_shipped_lock_with_all_its_shards():
    lock = read_lock(default_lock_path())
    for model in read_catalogue().values():
        for variant in model.variants:
            files = lock[slug_of(model.name, variant)].files
            assert in_shard_order(files) == files
            assert all(file.url.startswith(f"{model.source}/resolve/") for file in files)


def test_the_lock_of_a_checkout_is_the_one_at_its_root():
    assert default_lock_path() == Path(__file__).parents[2] / "artefacts.lock"
