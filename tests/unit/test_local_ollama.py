"""Which Ollama `rackllama land --ollama` means, and how the catalogue runs what it lands."""

from pathlib import Path

import pytest

from rackllama.catalog.models import read_catalogue
from rackllama.host.errors import RackllamaError
from rackllama.host.models.modelfile import ModelSettings
from rackllama.landing.local_ollama import local_ollama, settings_of


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("127.0.0.1:9999", "http://127.0.0.1:9999"),
        ("http://gpu1", "http://gpu1:80"),
        ("https://gpu1", "https://gpu1:443"),
        ("[::]:11500", "http://[::1]:11500"),
    ],
)
def test_it_is_asked_where_it_listens(tmp_path: Path, host: str, url: str) -> None:
    assert local_ollama({"OLLAMA_HOST": host, "OLLAMA_MODELS": str(tmp_path)}).url == url


def test_the_folder_that_is_given_comes_before_the_environments(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    found = local_ollama({"OLLAMA_MODELS": str(tmp_path)}, tmp_path / "given")
    assert found.models_dir == tmp_path / "given"


def test_without_a_folder_of_models_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(RackllamaError, match="no folder of Ollama's models") as caught:
        local_ollama({"OLLAMA_MODELS": str(tmp_path / "missing")})
    assert "--models-dir" in caught.value.remedy


@pytest.mark.parametrize("source", ["deepseek-r1:ud-iq1_m", "deepseek-r1-ud-iq1-m"])
def test_the_catalogue_says_how_its_models_are_run(source: str) -> None:
    settings, reasoning = settings_of(source, read_catalogue())
    assert (settings.parameters["temperature"], reasoning) == (0.6, True)


def test_what_the_catalogue_does_not_know_runs_as_its_own_file_says() -> None:
    assert settings_of("/mnt/usb/own.gguf", read_catalogue()) == (ModelSettings(), False)
