"""Reports, listeners and directories: what is said of a host."""

from pathlib import Path

from rackllama.host.directories import Access, first_closed_parent
from rackllama.host.report import Check, failed, in_words, report
from rackllama.host.sockets import Listener, parse_listeners

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:2CAA 0100007F:9C40 01 00000000:00000000 00:00000000 00000000   999        0 3 1 0 20 4 30 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:2CAA 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
"""


def test_listeners_are_told_from_connections():
    assert parse_listeners(TCP) == [Listener("127.0.0.1", 11434), Listener("0.0.0.0", 22)]


def test_only_loopback_counts_as_closed():
    assert [listener.is_loopback for listener in parse_listeners(TCP) + parse_listeners(TCP6)] == [
        True,
        False,
        True,
        False,
    ]


def test_a_report_names_the_remedy_of_what_failed():
    document = report(
        "gpu1", [Check("disk", True, "10 GiB", "20 GiB"), Check("port 80", False, "free", "taken", "stop it")]
    )
    assert failed(document) == ["port 80"]
    assert in_words(document) == [
        "ok    disk     20 GiB",
        "FAIL  port 80  wanted free, found taken",
        "               remedy: stop it",
    ]


def test_the_first_folder_that_is_closed_to_a_service_is_named():
    root, home, data = Path("/"), Path("/home"), Path("/home/data")
    parents = [Access(root, 0, 0, 0o755), Access(home, 0, 50, 0o710), Access(data, 7, 7, 0o700)]
    assert first_closed_parent(parents, uid=7, gids=[50]) is None
    assert first_closed_parent(parents, uid=7, gids=[7]) == home
    assert first_closed_parent(parents, uid=8, gids=[50]) == data
