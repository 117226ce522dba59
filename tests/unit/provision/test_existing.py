"""Machines that already run, and whether SSH answers at an address."""

import socket

import pytest
from tests.stacks.bmc import free_port, ssh_at

from rackllama.host.errors import RackllamaError
from rackllama.provision.answering import ssh_banner, wait_for_ssh
from rackllama.provision.existing import HostArgs, require_answer


def host(port: int = 22, **more: object) -> HostArgs:
    return HostArgs("gpu1", "127.0.0.1", "ops", port, "2xL20", ("serving", "gateway"), **more)


def test_ssh_answers_only_where_an_ssh_server_is() -> None:
    port = free_port()
    assert ssh_banner("127.0.0.1", port) is None
    listener = ssh_at(port)
    assert ssh_banner("127.0.0.1", port) == "SSH-2.0-stand-in"
    assert wait_for_ssh("gpu1", "127.0.0.1", port, 5) == "SSH-2.0-stand-in"
    listener.close()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        assert ssh_banner("127.0.0.1", silent.getsockname()[1], seconds=0.2) is None


def test_an_ssh_that_never_answers_is_an_error_after_the_limit() -> None:
    with pytest.raises(RackllamaError, match=r"gpu1 does not answer SSH at 127\.0\.0\.1:\d+ after 0 s"):
        wait_for_ssh("gpu1", "127.0.0.1", free_port(), 0.1)


def test_it_is_described_as_its_owner_says() -> None:
    found = host(2222, key="/keys/ops").described({"rack": "3"})
    assert (found.name, found.address, found.user) == ("gpu1", "127.0.0.1", "ops")
    assert (found.gpus, found.roles) == (["L20", "L20"], ("serving", "gateway"))
    assert found.labels == {"provider": "baremetal", "rack": "3"}
    assert found.login == {"key": "/keys/ops", "port": 2222}


def test_one_that_does_not_answer_is_told_with_the_way_to_do_without() -> None:
    port = free_port()
    with pytest.raises(RackllamaError, match="does not answer SSH") as refused:
        require_answer(host(port))
    assert "`require_ssh: false`" in refused.value.remedy
    with ssh_at(port):
        require_answer(host(port))


def test_gpus_and_roles_that_nobody_knows_are_refused() -> None:
    with pytest.raises(RackllamaError, match="GPU 'Voodoo3'"):
        HostArgs("gpu1", "10.0.0.1", gpus="8xVoodoo3")
    with pytest.raises(RackllamaError, match="the role cooking"):
        HostArgs("gpu1", "10.0.0.1", roles=("cooking",))
    with pytest.raises(RackllamaError, match="of nothing"):
        HostArgs("gpu1", "10.0.0.1", roles=())
