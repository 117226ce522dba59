"""A proxy is used through the environment, and an address that is none is refused without being told."""

import os

import pytest

from rackllama import cli
from rackllama.host import program
from rackllama.host.errors import RackllamaError
from rackllama.host.proxies import behind, require_proxies


def test_it_is_in_the_environment_meanwhile(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://before:3128")
    monkeypatch.delenv("https_proxy", raising=False)
    with behind({"http_proxy": "http://me:geheim@proxy:3128", "https_proxy": "proxy:3128"}):
        assert os.environ["http_proxy"] == "http://me:geheim@proxy:3128"
        assert os.environ["https_proxy"] == "proxy:3128"
    assert os.environ["http_proxy"] == "http://before:3128"
    assert "https_proxy" not in os.environ


@pytest.mark.parametrize(
    "address",
    [
        "http://me:ge/heim@proxy:3128",
        "http://me:1/heim@proxy:3128",
        "http://me:1#heim@proxy:3128",
        "http://me:1?heim@proxy:3128",
        "http://me:heim@proxy:port",
        "http://me:[heim@proxy:3128",
        "socks5://me:heim@proxy:1080",
        "http://",
    ],
)
def test_an_address_that_is_none_is_named_and_not_told(address):
    with pytest.raises(RackllamaError, match="HTTPS_PROXY is not the address of a proxy") as caught:
        require_proxies({"HTTPS_PROXY": address, "no_proxy": "localhost,.example.com"})
    assert "heim" not in str(caught.value)


def test_without_an_address_there_is_no_proxy():
    require_proxies({"http_proxy": "", "https_proxy": "", "no_proxy": "*"})


@pytest.mark.parametrize(
    "command", [(cli.main, ["land", "model", "--out", "file"]), (cli.main, ["lock"]), (program.main, ["land", "job"])]
)
def test_whatever_downloads_refuses_it_first(command, monkeypatch, capsys):
    main, arguments = command
    monkeypatch.setenv("https_proxy", "http://me:ge/heim@proxy:3128")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "https_proxy is not the address of a proxy" in said
    assert "heim" not in said
