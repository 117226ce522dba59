"""Serving an install image: one file, to whoever knows its URL, in the ranges that BMCs ask for."""

from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.provision.redfish.media import byte_range, listening_address, served

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "gpu1.iso"
    path.write_bytes(CONTENT)
    (tmp_path / "other.iso").write_bytes(b"not to be seen")
    return path


def test_a_bmc_reads_the_whole_image_its_size_and_any_part_of_it(image: Path) -> None:
    with served(image, "127.0.0.1") as url:
        assert url.endswith("/gpu1.iso")
        assert urlopen(url).read() == CONTENT
        with urlopen(Request(url, method="HEAD")) as head:
            assert head.headers["Content-Length"] == str(len(CONTENT))
            assert head.headers["Accept-Ranges"] == "bytes"
        with urlopen(Request(url, headers={"Range": "bytes=2048-4095"})) as part:
            assert (part.status, part.headers["Content-Range"]) == (206, f"bytes 2048-4095/{len(CONTENT)}")
            assert part.read() == CONTENT[2048:4096]


def test_nothing_else_can_be_read_guessed_or_written(image: Path) -> None:
    with served(image, "127.0.0.1") as url, served(image, "127.0.0.1") as again:
        assert url.rsplit("/", 2)[1] != again.rsplit("/", 2)[1]
        base = url.rsplit("/", 2)[0]
        for path in ("/", "/gpu1.iso", "/other.iso", f"/{url.rsplit('/', 2)[1]}/other.iso", "/%2e%2e/gpu1.iso"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(base + path)
        with pytest.raises(HTTPError, match="501"):
            urlopen(Request(url, data=b"x", method="PUT"))


def test_it_ends_with_the_install(image: Path) -> None:
    with served(image, "127.0.0.1") as url:
        pass
    with pytest.raises(URLError, match="refused"):
        urlopen(url)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, (0, 99)),
        ("bytes=0-0", (0, 0)),
        ("bytes=90-", (90, 99)),
        ("bytes=-10", (90, 99)),
        ("bytes=90-1000", (90, 99)),
        ("bytes=100-", None),
        ("bytes=-", (0, 99)),
        ("lines=1-2", (0, 99)),
    ],
)
def test_ranges_are_read_as_http_has_them(asked: str | None, found: tuple[int, int] | None) -> None:
    assert byte_range(asked, 100) == found


@pytest.mark.parametrize("at", ["0.0.0.0", "0.0.0.0:80", "gpu.example", "10.0.0.1:x", "::"])
def test_it_is_served_at_one_address_that_is_named(at: str) -> None:
    with pytest.raises(RackllamaError, match="serve"):
        listening_address(at)


def test_an_address_of_another_machine_is_refused(image: Path) -> None:
    with pytest.raises(RackllamaError, match=r"cannot be served at 192\.0\.2\.1"), served(image, "192.0.2.1"):
        pass
