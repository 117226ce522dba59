"""What each kind of upstream publishes, read from a stand-in upstream: a table of addresses and their content."""

import gzip
import json
import lzma
import shutil
import subprocess
from dataclasses import replace
from hashlib import sha256

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.mirror.lock import Artefact, LockedFile
from rackllama.mirror.upstreams import learn, parse_checksums, release_indexes, verified_by_gpgv

AMD64, ARM64 = sha256(b"amd64 archive").hexdigest(), sha256(b"arm64 archive").hexdigest()
RELEASE = "https://github.com/ollama/ollama/releases/download/v0.33.0"
RELEASE_API = "https://api.github.com/repos/ollama/ollama/releases/tags/v0.33.0"
OLLAMA = Artefact(
    "ollama",
    "0.33.0",
    "MIT",
    "github-release:ollama/ollama",
    (
        LockedFile(f"{RELEASE}/ollama-linux-amd64.tar.zst", architecture="amd64"),
        LockedFile(f"{RELEASE}/ollama-linux-arm64.tar.zst", architecture="arm64"),
    ),
)
WITH_SUMS = replace(OLLAMA, origin="github-release:ollama/ollama#sha256sum.txt")


def stand_in_upstream(pages):
    """A fetch that knows only these addresses; each that was asked for stands in `fetch.asked`."""

    def fetch(url):
        fetch.asked.append(url)
        if url not in pages:
            raise RackllamaError(f"upstream has no {url}", "check version and origin in the lock")
        content = pages[url]
        return content if isinstance(content, bytes) else content.encode()

    fetch.asked = []
    return fetch


def release_json(*assets):
    return json.dumps({"assets": [{"name": name, "size": size, "digest": digest} for name, size, digest in assets]})


def checksums(artefact):
    return [(file.size, file.sha256) for file in artefact.files]


OLLAMA_RELEASE = release_json(
    ("ollama-linux-amd64.tar.zst", 11, f"sha256:{AMD64}"),
    ("ollama-linux-arm64.tar.zst", 22, f"sha256:{ARM64}"),
    ("sha256sum.txt", 3, None),
)


def test_a_github_release_tells_size_and_digest_of_each_asset_and_none_is_downloaded():
    fetch = stand_in_upstream({RELEASE_API: OLLAMA_RELEASE})
    assert checksums(learn(OLLAMA, fetch)) == [(11, AMD64), (22, ARM64)]
    assert fetch.asked == [RELEASE_API]


def test_a_tag_that_is_not_v_and_the_version_is_given_in_the_origin():
    file = LockedFile(
        "https://github.com/ggml-org/llama.cpp/releases/download/b10488/llama-b10488-bin-ubuntu-x64.tar.gz"
    )
    llama_cpp = Artefact("llama_cpp", "b10488", "MIT", "github-release:ggml-org/llama.cpp@{version}", (file,))
    pages = {
        "https://api.github.com/repos/ggml-org/llama.cpp/releases/tags/b10488": release_json(
            (file.name, 33, f"sha256:{AMD64}")
        )
    }
    assert checksums(learn(llama_cpp, stand_in_upstream(pages))) == [(33, AMD64)]


def test_a_release_from_before_digests_is_read_by_its_checksum_file():
    pages = {
        RELEASE_API: release_json(("ollama-linux-amd64.tar.zst", 11, None), ("ollama-linux-arm64.tar.zst", 22, None)),
        f"{RELEASE}/sha256sum.txt": f"{AMD64}  ./ollama-linux-amd64.tar.zst\n{ARM64}  ./ollama-linux-arm64.tar.zst\n",
    }
    assert checksums(learn(WITH_SUMS, stand_in_upstream(pages))) == [(11, AMD64), (22, ARM64)]
    with pytest.raises(RackllamaError, match=r"publishes no sha256 for ollama-linux-amd64\.tar\.zst"):
        learn(OLLAMA, stand_in_upstream(pages))


def test_a_checksum_file_that_disagrees_with_the_digests_is_refused():
    pages = {
        RELEASE_API: OLLAMA_RELEASE,
        f"{RELEASE}/sha256sum.txt": f"{ARM64}  ./ollama-linux-amd64.tar.zst\n{ARM64}  ./ollama-linux-arm64.tar.zst\n",
    }
    with pytest.raises(RackllamaError, match=r"sha256sum.txt and the digest of ollama-linux-amd64.tar.zst .* disagree"):
        learn(WITH_SUMS, stand_in_upstream(pages))


def test_a_checksum_file_that_leaves_a_file_out_is_refused():
    pages = {RELEASE_API: OLLAMA_RELEASE, f"{RELEASE}/sha256sum.txt": f"{AMD64}  ./ollama-linux-amd64.tar.zst\n"}
    with pytest.raises(RackllamaError, match="publishes no sha256 for ollama-linux-arm64"):
        learn(WITH_SUMS, stand_in_upstream(pages))


def test_an_asset_that_is_missing_names_those_near_it():
    pages = {RELEASE_API: release_json(("ollama-linux-amd64.tgz", 11, f"sha256:{AMD64}"))}
    with pytest.raises(RackllamaError, match=r"near it there is: ollama-linux-amd64\.tgz"):
        learn(OLLAMA, stand_in_upstream(pages))


@pytest.mark.parametrize("page", ["<html>sign in</html>", "[]", '{"message": "moved"}'])
def test_an_answer_that_is_no_release_is_told(page):
    with pytest.raises(RackllamaError, match="something else than metadata"):
        learn(OLLAMA, stand_in_upstream({RELEASE_API: page}))


def test_a_checksum_file_anywhere_gives_checksums_and_no_sizes():
    sums = "https://get.test/3.1/SHA256SUMS"
    origin = "checksum-file:https://get.test/{version}/SHA256SUMS"
    tool = Artefact("tool", "3.1", "MIT", origin, (LockedFile("https://get.test/3.1/t.gz"),))
    assert checksums(learn(tool, stand_in_upstream({sums: f"{AMD64} *t.gz\n"}))) == [(None, AMD64)]


def test_a_listing_of_md5_alone_is_refused():
    with pytest.raises(RackllamaError, match=r"md5sum\.txt holds only md5, where sha256 is needed"):
        parse_checksums("0123456789abcdef0123456789abcdef  cuda_12.8.run\n", "md5sum.txt")


def test_a_page_that_is_no_listing_is_refused():
    with pytest.raises(RackllamaError, match="holds no checksums at all"):
        parse_checksums("<html>sign in</html>", "sha256sum.txt")


def test_two_checksums_for_one_name_are_refused():
    with pytest.raises(RackllamaError, match=r"two checksums for a\.tar"):
        parse_checksums(f"{AMD64}  a.tar\n{ARM64}  old/a.tar\n", "sha256sum.txt")


def test_an_origin_of_another_kind_names_those_there_are():
    with pytest.raises(RackllamaError, match="where no checksums are published") as caught:
        learn(replace(OLLAMA, origin="lab-depot"), stand_in_upstream({}))
    assert "github-release, checksum-file, apt, huggingface" in caught.value.remedy


@pytest.mark.parametrize(
    "origin", ["github-release:ollama", "huggingface:gemma", "apt:https://deb.test", "apt:https://deb.test trixie"]
)
def test_a_malformed_origin_shows_its_form(origin):
    with pytest.raises(RackllamaError, match="not well-formed") as caught:
        learn(replace(OLLAMA, origin=origin), stand_in_upstream({}))
    assert caught.value.remedy.startswith(f"write it as {origin.partition(':')[0]}:")


# The model hub

HUB = "https://huggingface.co"
COMMIT = "c" * 40
SHARDS = [f"R1-UD-IQ1_S/R1-UD-IQ1_S-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
R1 = Artefact("r1-ud-iq1-s", "main", "MIT", "huggingface:unsloth/R1-GGUF", (), "R1-UD-IQ1_S/*.gguf")


def hub_page(paths, commit=COMMIT):
    files = [{"rfilename": p, "lfs": {"size": len(p), "sha256": sha256(p.encode()).hexdigest()}} for p in paths]
    return json.dumps({"sha": commit, "siblings": [{"rfilename": "README.md"}, *files]})


def hub(paths, revision="main"):
    return stand_in_upstream({f"{HUB}/api/models/unsloth/R1-GGUF/revision/{revision}?blobs=true": hub_page(paths)})


def test_a_pattern_becomes_all_shards_in_order_at_the_commit_of_the_revision():
    learnt = learn(R1, hub(["R1-Q8/R1-Q8.gguf", *reversed(SHARDS)]))
    assert learnt.version == COMMIT
    assert [file.url for file in learnt.files] == [f"{HUB}/unsloth/R1-GGUF/resolve/{COMMIT}/{path}" for path in SHARDS]
    assert checksums(learnt) == [(len(path), sha256(path.encode()).hexdigest()) for path in SHARDS]


def test_files_listed_at_a_branch_are_pinned_to_its_commit():
    files = tuple(LockedFile(f"{HUB}/unsloth/R1-GGUF/resolve/main/{path}") for path in SHARDS)
    assert learn(replace(R1, files=files, pattern=None), hub(SHARDS)).files == learn(R1, hub(SHARDS)).files


def test_a_locked_model_is_asked_for_at_its_commit():
    locked = learn(R1, hub(SHARDS))
    assert learn(locked, hub(SHARDS, revision=COMMIT)) == locked


def test_a_shard_that_upstream_lacks_is_told():
    with pytest.raises(RackllamaError, match="not all the shards"):
        learn(R1, hub(SHARDS[:2]))


def test_a_pattern_that_matches_nothing_is_told():
    with pytest.raises(RackllamaError, match=r"revision main of unsloth/R1-GGUF has no R1-UD-IQ1_S/\*\.gguf"):
        learn(R1, hub(["R1-Q8/R1-Q8.gguf"]))


def test_a_file_that_the_hub_gives_no_sha256_for_is_refused():
    readme = LockedFile(f"{HUB}/unsloth/R1-GGUF/resolve/main/README.md")
    with pytest.raises(RackllamaError, match=r"publishes no sha256 for README\.md"):
        learn(replace(R1, files=(readme,), pattern=None), hub(SHARDS))


# An apt archive

BASE = "https://deb.test/debian"
DEB = "pool/main/d/driver/driver_570.1-1+b1_amd64.deb"
PACKAGES = f"""Package: other
Filename: pool/main/o/other_1_amd64.deb
Size: 1
SHA256: {ARM64}

Package: driver
Version: 570.1-1+b1
Filename: {DEB}
Size: 570
MD5sum: 0123456789abcdef0123456789abcdef
SHA256: {AMD64}
"""
DRIVER = Artefact("driver", "570.1-1+b1", "NVIDIA", f"apt:{BASE} trixie main", (LockedFile(f"{BASE}/{DEB}"),))


def release_of(path, content):
    listed = f"SHA256:\n {sha256(content).hexdigest()} {len(content)} {path}\n {AMD64} 1 Contents\n"
    return f"Suite: trixie\nMD5Sum:\n 00 1 {path}\n{listed}"


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_package_is_found_in_the_index_that_the_release_vouches_for(suffix, pack):
    index = pack(PACKAGES.encode())
    fetch = stand_in_upstream(
        {
            f"{BASE}/dists/trixie/Release": release_of(f"main/binary-amd64/Packages{suffix}", index),
            f"{BASE}/dists/trixie/main/binary-amd64/Packages{suffix}": index,
        }
    )
    assert checksums(learn(DRIVER, fetch)) == [(570, AMD64)]


def test_a_flat_archive_has_its_indexes_at_its_root():
    index = PACKAGES.replace("Filename: pool", "Filename: ./pool").encode()
    flat = replace(DRIVER, origin=f"apt:{BASE} ./", files=(LockedFile(f"{BASE}/{DEB.replace('+', '%2B')}"),))
    fetch = stand_in_upstream({f"{BASE}/Release": release_of("Packages", index), f"{BASE}/Packages": index})
    assert checksums(learn(flat, fetch)) == [(570, AMD64)]


def test_an_index_that_the_release_does_not_vouch_for_is_refused():
    fetch = stand_in_upstream(
        {
            f"{BASE}/dists/trixie/Release": release_of("main/binary-amd64/Packages", PACKAGES.encode()),
            f"{BASE}/dists/trixie/main/binary-amd64/Packages": PACKAGES.replace(AMD64, ARM64),
        }
    )
    with pytest.raises(RackllamaError, match="not the one that the archive's Release lists"):
        learn(DRIVER, fetch)


def test_a_release_without_a_sha256_list_is_refused():
    fetch = stand_in_upstream(
        {f"{BASE}/dists/trixie/Release": "Suite: trixie\nMD5Sum:\n 00 1 main/binary-amd64/Packages\n"}
    )
    with pytest.raises(RackllamaError, match="lists no main/binary-amd64/Packages with a sha256"):
        learn(DRIVER, fetch)


def test_a_package_of_another_version_is_told_with_the_one_there_is():
    index = PACKAGES.encode()
    fetch = stand_in_upstream({f"{BASE}/Release": release_of("Packages", index), f"{BASE}/Packages": index})
    newer = replace(DRIVER, origin=f"apt:{BASE} ./", files=(LockedFile(f"{BASE}/{DEB.replace('570.1', '570.2')}"),))
    with pytest.raises(RackllamaError, match=r"near it there is: .*driver_570\.1-1"):
        learn(newer, fetch)


def test_an_archive_neither_signed_nor_encrypted_is_not_trusted():
    plain = replace(DRIVER, origin="apt:http://deb.test/debian trixie main")
    with pytest.raises(RackllamaError, match="neither signed by a known key nor read over https"):
        learn(plain, stand_in_upstream({}))


def test_the_sha256_list_of_a_release_may_end_with_the_file():
    assert release_indexes(f"SHA256:\n {AMD64} 7 Packages") == {"Packages": (7, AMD64)}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    """A vendor with a signing key: (keyring, fingerprint, sign)."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]

    def run(*arguments, text=b""):
        return subprocess.run([*gpg, *arguments], input=text, capture_output=True, check=True).stdout

    run("--quick-generate-key", "vendor@deb.test", "ed25519", "sign", "never")
    listing = run("--with-colons", "--list-keys").decode().splitlines()
    fingerprint = next(line.split(":")[9] for line in listing if line.startswith("fpr:"))
    keyring = home / "vendor.gpg"
    keyring.write_bytes(run("--export", fingerprint))
    yield keyring, fingerprint, lambda text: run("--clear-sign", text=text.encode())
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


def test_a_signed_archive_is_read_by_its_pinned_key(vendor):
    keyring, fingerprint, sign = vendor
    index = PACKAGES.encode()
    fetch = stand_in_upstream(
        {
            f"{BASE}/dists/trixie/InRelease": sign(release_of("main/binary-amd64/Packages", index)),
            f"{BASE}/dists/trixie/main/binary-amd64/Packages": index,
        }
    )
    signed = replace(DRIVER, origin=f"apt:[signed-by={keyring} fingerprint={fingerprint}] {BASE} trixie main")
    assert checksums(learn(signed, fetch)) == [(570, AMD64)]


def test_a_signature_by_a_key_that_is_not_the_pinned_one_is_refused(vendor):
    keyring, _, sign = vendor
    with pytest.raises(RackllamaError, match="is not signed by"):
        verified_by_gpgv(sign("SHA256:\n"), keyring, "0" * 40)


def test_a_text_changed_after_signing_is_refused(vendor):
    keyring, fingerprint, sign = vendor
    with pytest.raises(RackllamaError, match="is not signed by"):
        verified_by_gpgv(sign("Suite: trixie\n").replace(b"trixie", b"sid"), keyring, fingerprint)


def test_what_stands_outside_the_signed_text_is_not_read(vendor):
    keyring, fingerprint, sign = vendor
    assert verified_by_gpgv(b"Suite: sid\n" + sign("Suite: trixie\n"), keyring, fingerprint) == b"Suite: trixie\n"


def test_what_upstream_publishes_no_sha256_of_stays_as_a_person_wrote_it():
    written = Artefact("driver", "1", "MIT", "vouched-for:o/r", (LockedFile("https://get.test/d.run", 1, "a" * 64),))
    assert learn(written, fetch=None) == written
    lacking = replace(written, files=(LockedFile("https://get.test/d.run"),))
    with pytest.raises(RackllamaError, match="o/r has one"):
        learn(lacking, fetch=None)
