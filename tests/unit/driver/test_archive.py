"""NVIDIA's archive is trusted by a key whose fingerprint is known beforehand, and by nothing else."""

import pytest

from rackllama.host.driver.archive import Copy, archive_source, trusted_key, wanted_files
from rackllama.host.driver.openpgp import dearmoured, fingerprints
from rackllama.host.errors import RackllamaError

# A key made for this test; gpg tells the same fingerprint of it.
KEY = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawMNzBYJKwYBBAHaRw8BAQdA3oOgjXAMAcfnpz9irOHah/g0e1DHFkmnrbsD
ODaCuSG0KVN0YW5kLWluIGFyY2hpdmUgdHdvIDxub2JvZHlAZXhhbXBsZS5jb20+
iJAEExYIADgWIQRCSEcohwR4QrbiyC09OCcOzvGUhgUCawMNzAIbAwULCQgHAgYV
CgkICwIEFgIDAQIeAQIXgAAKCRA9OCcOzvGUhmf3AQCiLqOHeLJhM5hmkAvATp9K
VJw3O2ffUUVNerTB3C77XwD+ISIpZAYo3kAQw/1BoNXUwfYvLPi42rs6xFhcBrmM
Zgw=
=0ikc
-----END PGP PUBLIC KEY BLOCK-----
"""
FINGERPRINT = "4248472887047842B6E2C82D3D38270ECEF19486"
OURS = archive_source("debian", "12", "x86_64", Copy("http://mirror.example/cuda/", FINGERPRINT))


def test_a_fingerprint_is_that_which_gpg_tells():
    assert fingerprints(dearmoured(KEY)) == [FINGERPRINT]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<html>sign in</html>", "no armour"),
        (KEY + KEY, "more than one"),
        (KEY.replace("mDME", "AAAA"), "no tag"),
        (KEY[: KEY.index("Zgw=")] + "-----END PGP PUBLIC KEY BLOCK-----", "cut off"),
        (KEY.replace("mDMEawMNzBY", "mDMDawMNzBY"), "version"),
    ],
)
def test_what_is_no_key_is_refused(text, why):
    with pytest.raises(RackllamaError, match=why):
        fingerprints(dearmoured(text))


def test_a_source_names_its_key_and_no_other():
    files = {path.name: text for path, text in wanted_files(OURS, KEY).items()}
    assert files["rackllama-nvidia.asc"] == KEY
    told = files["rackllama-nvidia.sources"].splitlines()
    assert "URIs: http://mirror.example/cuda/debian12/x86_64/" in told
    assert f"Signed-By: {OURS.key_path}" in told


def test_another_key_is_refused_before_anything_is_written():
    upstream = archive_source("debian", "12", "x86_64", Copy())
    with pytest.raises(RackllamaError, match=f"{FINGERPRINT} and ought to be EB693B30") as refused:
        wanted_files(upstream, KEY)
    assert "do not trust it" in refused.value.remedy


def test_a_key_that_lies_there_is_not_fetched_again_unless_it_is_another():
    assert trusted_key(OURS, KEY) == KEY
    assert trusted_key(OURS, "") is None
    assert trusted_key(archive_source("debian", "12", "x86_64", Copy()), KEY) is None


def test_it_is_fetched_from_upstream_a_mirror_or_a_copy():
    upstream = archive_source("ubuntu", "24.04", "aarch64", Copy())
    mirrored = archive_source("ubuntu", "24.04", "aarch64", Copy(mirror="http://m.example/"))
    assert upstream.url.endswith(".nvidia.com/compute/cuda/repos/ubuntu2404/sbsa/")
    assert mirrored.url == upstream.url.replace("https:/", "http://m.example")
    assert OURS.key_url == "http://mirror.example/cuda/debian12/x86_64/3bf863cc.pub"


def test_without_an_archive_or_a_known_key_it_says_what_to_do():
    with pytest.raises(RackllamaError, match="no package archive for debian 13"):
        archive_source("debian", "13", "x86_64", Copy())
    with pytest.raises(RackllamaError, match="rhel10 is not known here"):
        archive_source("rocky", "10.1", "x86_64", Copy())
    known = archive_source("rocky", "10.1", "x86_64", Copy(fingerprint="ab" * 20))
    assert known.fingerprint == "AB" * 20
    assert "gpgcheck=1" in known.text
