"""What all services of a host share: the tools of llama.cpp, the journal's limit, no failed unit."""

from testinfra.host import Host


def test_the_tools_of_llama_cpp_run(host: Host) -> None:
    assert "usage" in host.check_output("/opt/llama_cpp/current/llama-gguf-split --help").lower()


def test_the_journal_is_limited(host: Host, knobs) -> None:
    shown = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    limits = [line.partition("=")[2] for line in shown.splitlines() if line.startswith("SystemMaxUse=")]
    assert limits[-1:] == [knobs["journal_max_use"]]


def test_nothing_has_failed(host: Host) -> None:
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""
