"""How each upstream publishes sizes and sha256, and so how an artefact's lock entry is learnt.

Nothing here downloads an artefact: its checksum comes from what upstream publishes beside it. An origin is
`KIND:SUBJECT`, where `{version}` stands for the artefact's version:

- `github-release:OWNER/REPO[@TAG][#CHECKSUM_FILE]`: the digests of a release's assets; the tag is `v{version}` unless
  given. With a checksum file, itself an asset, both must agree.
- `checksum-file:URL`: a file as `sha256sum` writes it. It says no sizes.
- `apt:[signed-by=KEYRING fingerprint=HEX] BASE SUITE [COMPONENT]`: a Debian archive, as a line of sources.list.
- `huggingface:OWNER/REPO`: a model repository; the version is a revision, and locking pins it to the commit it names.
- `vouched-for:OWNER/REPO`: upstream publishes no sha256, and a public repository of many users does. It is read by a
  person, who writes it into the lock.
"""

import difflib
import fnmatch
import gzip
import hashlib
import lzma
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from rackllama.host.errors import RackllamaError
from rackllama.mirror.hubs import hugging_face
from rackllama.mirror.lock import SHA256, Artefact, LockedFile, in_shard_order, with_checksums
from rackllama.mirror.metadata import Fetch, json_document, published_sha256

Checksums = dict[str, tuple[int | None, str]]

HEX_LENGTHS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}


def learn(artefact: Artefact, fetch: Fetch) -> Artefact:
    """The artefact with the size and sha256 of every file as upstream publishes them today.

    Raises RackllamaError where upstream cannot be reached, does not have the version, or publishes no sha256.
    """
    kind, _, subject = artefact.origin.partition(":")
    if kind not in ORIGINS:
        raise RackllamaError(
            f"{artefact.name} comes from {artefact.origin!r}, where no checksums are published",
            f"give it one of the origins {', '.join(ORIGINS)} in the lock",
        )
    return ORIGINS[kind](subject.replace("{version}", artefact.version), artefact, fetch)


def parse_checksums(text: str, source: str) -> dict[str, str]:
    """File name -> sha256 of a `sha256sum` listing; folders before a name are dropped.

    Raises RackllamaError where the listing holds no sha256 (only md5, say), or two different ones for one name.
    """
    sums: dict[str, str] = {}
    kinds = set()
    for line in text.splitlines():
        match = re.fullmatch(r"(?P<hex>[0-9a-fA-F]{32,128})\s+\*?(?P<name>\S.*)", line.strip())
        if not match or len(match["hex"]) not in HEX_LENGTHS:
            continue
        kinds.add(HEX_LENGTHS[len(match["hex"])])
        if SHA256.fullmatch(match["hex"].lower()):
            name = PurePosixPath(match["name"].strip()).name
            if sums.setdefault(name, match["hex"].lower()) != match["hex"].lower():
                raise RackllamaError(f"{source} holds two checksums for {name}", "tell upstream; do not install it")
    if not sums:
        found = f"only {', '.join(sorted(kinds))}" if kinds else "no checksums at all"
        raise RackllamaError(f"{source} holds {found}, where sha256 is needed", "give the artefact another origin")
    return sums


def _github_release(subject: str, artefact: Artefact, fetch: Fetch) -> Artefact:
    match = re.fullmatch(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<tag>[^#\s]+))?(?:#(?P<sums>\S+))?", subject)
    if not match:
        raise _malformed(artefact, "github-release:OWNER/REPO[@TAG][#CHECKSUM_FILE]")
    tag = match["tag"] or f"v{artefact.version}"
    source = f"https://api.github.com/repos/{match['repo']}/releases/tags/{quote(tag, safe='')}"
    assets = {asset["name"]: asset for asset in json_document(fetch(source), source, "assets")["assets"]}
    listed: dict[str, str] = {}
    if match["sums"]:
        address = f"https://github.com/{match['repo']}/releases/download/{quote(tag, safe='')}/{match['sums']}"
        listed = parse_checksums(_text(fetch(address), address), address)

    def published(file: LockedFile) -> tuple[int, str]:
        if file.name not in assets:
            raise _not_published(file.name, assets, f"release {tag} of {match['repo']}")
        digest = (assets[file.name].get("digest") or "").removeprefix("sha256:")
        sums = {value for value in (digest, listed.get(file.name)) if value}
        if len(sums) > 1:
            raise RackllamaError(
                f"{match['sums']} and the digest of {file.name} in release {tag} of {match['repo']} disagree",
                "the release was tampered with or is half published: do not install it, ask upstream",
            )
        if not sums or (match["sums"] and file.name not in listed):
            raise RackllamaError(
                f"release {tag} of {match['repo']} publishes no sha256 for {file.name}",
                "name upstream's checksum file in the origin: github-release:OWNER/REPO#FILE",
            )
        return int(assets[file.name]["size"]), published_sha256(sums.pop(), source)

    return with_checksums(artefact, {file.url: published(file) for file in artefact.files})


def _checksum_file(subject: str, artefact: Artefact, fetch: Fetch) -> Artefact:
    listed = parse_checksums(_text(fetch(subject), subject), subject)
    learnt: Checksums = {}
    for file in artefact.files:
        if file.name not in listed:
            raise _not_published(file.name, listed, subject)
        learnt[file.url] = (file.size, listed[file.name])
    return with_checksums(artefact, learnt)


def _huggingface(subject: str, artefact: Artefact, fetch: Fetch) -> Artefact:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", subject):
        raise _malformed(artefact, "huggingface:OWNER/REPO")
    found = hugging_face(subject, artefact.version, fetch)
    if artefact.pattern:
        paths = sorted(fnmatch.filter(found.files, artefact.pattern))
    else:
        locked_at = f"/resolve/{quote(artefact.version, safe='')}/"
        paths = [unquote(file.url.partition(locked_at)[2]) for file in artefact.files]
    for path in paths:
        if path not in found.files:
            raise _not_published(path, found.files, f"revision {artefact.version} of {subject}")
        if not found.files[path].sha256:
            raise RackllamaError(f"{subject} publishes no sha256 for {path}", "name files stored as large files only")
    if not paths:
        wanted = artefact.pattern or "a file"
        raise _not_published(wanted, found.files, f"revision {artefact.version} of {subject}")
    return replace(artefact, version=found.revision, files=in_shard_order(found.files[path] for path in paths))


def _apt(subject: str, artefact: Artefact, fetch: Fetch) -> Artefact:
    line = re.fullmatch(
        r"(?:\[signed-by=(?P<keyring>\S+) fingerprint=(?P<fingerprint>[0-9A-Fa-f]{40})\] +)?"
        r"(?P<base>https?://\S+) +(?P<suite>\S+)(?: +(?P<component>\S+))?",
        subject,
    )
    if not line or bool(line["component"]) == line["suite"].endswith("/"):
        raise _malformed(artefact, "apt:[signed-by=KEYRING fingerprint=HEX] BASE SUITE COMPONENT (or BASE ./)")
    base = line["base"].rstrip("/")
    flat = "/".join(part for part in (base, line["suite"].strip("./")) if part)
    root = f"{base}/dists/{line['suite']}" if line["component"] else flat
    if line["keyring"]:
        release = verified_by_gpgv(fetch(f"{root}/InRelease"), Path(line["keyring"]), line["fingerprint"])
    elif base.startswith("https://"):
        release = fetch(f"{root}/Release")
    else:
        raise RackllamaError(
            f"the apt archive of {artefact.name} is neither signed by a known key nor read over https",
            "give signed-by= and fingerprint= in the origin, or an https address",
        )
    indexes = release_indexes(_text(release, f"{root}/Release"))
    packages: Checksums = {}
    for architecture in sorted({file.architecture or "amd64" for file in artefact.files}):
        folder = f"{line['component']}/binary-{architecture}/" if line["component"] else ""
        packages |= {
            f"{base}/{name}": found for name, found in _packages(root, f"{folder}Packages", indexes, fetch).items()
        }
    learnt = {file.url: packages.get(unquote(file.url)) for file in artefact.files}
    for url, found in learnt.items():
        if not found:
            raise _not_published(url, packages, f"the index of {root}")
    return with_checksums(artefact, {url: found for url, found in learnt.items() if found})


def verified_by_gpgv(signed: bytes, keyring: Path, fingerprint: str) -> bytes:
    """The text that a clear-signed `InRelease` signs, once gpgv finds it signed by the key of that fingerprint.

    `keyring` is a binary keyring, as apt's own. Raises RackllamaError where the signature is missing, bad or another's.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, text = Path(folder, "InRelease"), Path(folder, "Release")
        source.write_bytes(signed)
        command = ["gpgv", "--status-fd", "1", "--keyring", str(keyring.absolute()), "--output", str(text), str(source)]
        try:
            status = subprocess.run(command, capture_output=True, check=False).stdout.decode(errors="replace")
        except FileNotFoundError:
            raise RackllamaError(
                "gpgv is not installed, and an apt signature is to be verified", "apt install gpgv"
            ) from None
        signers = {
            word for line in status.splitlines() if line.startswith("[GNUPG:] VALIDSIG ") for word in line.split()[2:]
        }
        spoilt = re.search(r"^\[GNUPG:\] (BADSIG|EXPSIG|EXPKEYSIG|REVKEYSIG) ", status, re.MULTILINE)
        if spoilt or fingerprint.upper() not in signers or not text.exists():
            raise RackllamaError(
                f"the apt archive's InRelease is not signed by {fingerprint} as found in {keyring}",
                "check the keyring against what the vendor publishes; do not install from this archive until it fits",
            )
        return text.read_bytes()


def release_indexes(release: str) -> dict[str, tuple[int, str]]:
    """Index path -> (size, sha256), of the SHA256 list of a `Release` file."""
    section = re.search(r"^SHA256:[ \t]*\n((?:[ \t]+\S.*(?:\n|$))+)", release, re.MULTILINE)
    rows = [row.split() for row in section[1].splitlines()] if section else []
    return {path: (int(size), sha256) for sha256, size, path in rows}


def parse_packages(text: str) -> dict[str, tuple[int, str]]:
    """File name relative to the archive's base -> (size, sha256), of a `Packages` index."""
    stanzas = (
        dict(re.findall(r"^(Filename|Size|SHA256): *(\S+)", stanza, re.MULTILINE)) for stanza in text.split("\n\n")
    )
    return {
        fields["Filename"].removeprefix("./"): (int(fields["Size"]), fields["SHA256"])
        for fields in stanzas
        if len(fields) == len(("Filename", "Size", "SHA256"))
    }


def _packages(root: str, path: str, indexes: Mapping[str, tuple[int, str]], fetch: Fetch) -> Checksums:
    unpackers: dict[str, Callable[[bytes], bytes]] = {".xz": lzma.decompress, ".gz": gzip.decompress, "": bytes}
    for suffix, unpack in unpackers.items():
        if f"{path}{suffix}" not in indexes:
            continue
        content = fetch(f"{root}/{path}{suffix}")
        if (len(content), hashlib.sha256(content).hexdigest()) != indexes[f"{path}{suffix}"]:
            raise RackllamaError(
                f"{root}/{path}{suffix} is not the one that the archive's Release lists",
                "try again in a few minutes: the archive may be just changing",
            )
        return dict(parse_packages(_text(unpack(content), path)))
    raise RackllamaError(
        f"the Release of {root} lists no {path} with a sha256", "check suite, component and architecture"
    )


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RackllamaError(f"{source} is not text", "check the origin in the lock") from error


def _not_published(name: str, names: Mapping[str, Any], where: str) -> RackllamaError:
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    hint = f"; near it there is: {', '.join(near)}" if near else ""
    return RackllamaError(f"{where} has no {name}{hint}", "correct version, url or pattern in artefacts.lock")


def _malformed(artefact: Artefact, form: str) -> RackllamaError:
    return RackllamaError(
        f"the origin of {artefact.name} is not well-formed: {artefact.origin!r}", f"write it as {form}"
    )


def _vouched_for(subject: str, artefact: Artefact, _: Fetch) -> Artefact:
    if artefact.is_locked:
        return artefact
    raise RackllamaError(
        f"upstream publishes no sha256 of {artefact.name}; {subject} has one",
        "read it there, compare it with a file that you have, and write it into the lock",
    )


ORIGINS: dict[str, Callable[[str, Artefact, Fetch], Artefact]] = {
    "github-release": _github_release,
    "checksum-file": _checksum_file,
    "apt": _apt,
    "huggingface": _huggingface,
    "vouched-for": _vouched_for,
}
