"""A service's files: sandboxed by default, and with a digest that follows all that must restart it."""

import json
from dataclasses import replace

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.services.unit import ServiceDeclaration, declared_digest, unit_files

HELLO = ServiceDeclaration(
    name="hello",
    user="hello",
    unit={"Description": "Says hello"},
    service={"ExecStart": "/usr/bin/hello --serve", "ReadWritePaths": ["/srv/a", "/srv/b"]},
    environment={"GREETING": 'say "100%"'},
    secrets={"TOKEN": "s3cret$"},
    ports=(8000,),
)


def texts(declaration):
    return {file.path.name: file.text for file in unit_files(declaration)}


def digest_of(declaration):
    return declared_digest(texts(declaration)["hello.env"])


def test_the_drop_in_says_all_again_so_that_an_overwritten_unit_changes_nothing():
    drop_in = texts(HELLO)["90-rackllama.conf"].splitlines()
    assert drop_in.index("ExecStart=") + 1 == drop_in.index("ExecStart=/usr/bin/hello --serve")
    assert "User=hello" in drop_in
    assert "Environment=" in drop_in
    assert "ExecStartPre=" in drop_in


def test_every_service_is_sandboxed_unless_its_role_opens_it():
    assert "PrivateDevices=yes" in texts(HELLO)["90-rackllama.conf"]
    opened = replace(HELLO, service={**HELLO.service, "PrivateDevices": False, "ProtectHome": None})
    assert "PrivateDevices=no" in texts(opened)["90-rackllama.conf"]
    assert "ProtectHome" not in texts(opened)["90-rackllama.conf"]


def test_lists_are_repeated():
    drop_in = texts(HELLO)["90-rackllama.conf"]
    assert "ReadWritePaths=\nReadWritePaths=/srv/a\nReadWritePaths=/srv/b\n" in drop_in


def test_two_names_of_one_list_do_not_reset_each_other():
    bound = {**HELLO.service, "BindPaths": ["/srv/a"], "BindReadOnlyPaths": ["/etc/hosts"]}
    drop_in = texts(replace(HELLO, service=bound))["90-rackllama.conf"]
    assert "BindPaths=\nBindPaths=/srv/a\nBindReadOnlyPaths=/etc/hosts\n" in drop_in


def test_a_secret_wins_over_a_variable_of_its_name():
    files = texts(replace(HELLO, environment={"TOKEN": "", "GREETING": "hi"}))
    assert "TOKEN" not in files["90-rackllama.conf"]
    assert json.loads(files["hello.json"])["environment"] == {"GREETING": "hi"}


def test_a_program_in_a_root_of_its_own_is_not_compared_with_one_of_the_host():
    contained = replace(HELLO, service={**HELLO.service, "RootDirectory": "/opt/hello/1.0/root"})
    assert json.loads(texts(HELLO)["hello.json"])["program"] == "/usr/bin/hello"
    assert json.loads(texts(contained)["hello.json"])["program"] == ""


def test_values_are_quoted_for_systemd():
    assert 'Environment="GREETING=say \\"100%%\\""' in texts(HELLO)["90-rackllama.conf"]
    assert 'TOKEN="s3cret\\$"' in texts(HELLO)["hello.env"]


def test_secrets_stand_only_in_a_file_of_mode_0600():
    holding = [file for file in unit_files(HELLO) if "s3cret" in file.text]
    assert [(file.path.name, file.mode) for file in holding] == [("hello.env", 0o600)]


@pytest.mark.parametrize(
    "changed",
    [
        {"environment": {"GREETING": "hi"}},
        {"secrets": {"TOKEN": "other"}},
        {"service": {**HELLO.service, "LimitNOFILE": 1024}},
        {"unit": {"Description": "Says it louder"}},
        {"restart_digests": ("another release",)},
    ],
)
def test_the_digest_follows_whatever_must_restart_the_service(changed):
    assert digest_of(replace(HELLO, **changed)) != digest_of(HELLO)


def test_the_digest_does_not_depend_on_order():
    again = replace(HELLO, service=dict(reversed(HELLO.service.items())))
    assert digest_of(again) == digest_of(HELLO)


def test_the_stub_is_written_last():
    assert unit_files(HELLO)[-1].path.name == "hello.service"


@pytest.mark.parametrize(
    "smuggled",
    [
        {"environment": {"GREETING": "hi\nExecStartPre=/bin/evil"}},
        {"secrets": {"TOKEN": "s\nOTHER=1"}},
        {"service": {**HELLO.service, "WorkingDirectory": "/srv\nUser=root"}},
        {"service": {**HELLO.service, "ReadWritePaths": ["/srv\nUser=root"]}},
    ],
)
def test_a_line_break_cannot_smuggle_in_a_directive(smuggled):
    with pytest.raises(RackllamaError, match="line break"):
        unit_files(replace(HELLO, **smuggled))


def test_a_service_without_a_command_is_refused():
    with pytest.raises(RackllamaError, match="no ExecStart"):
        unit_files(replace(HELLO, service={}))


def test_a_secret_with_a_line_break_is_named_and_not_told():
    with pytest.raises(RackllamaError, match="the value of TOKEN has a line break") as caught:
        unit_files(replace(HELLO, secrets={"TOKEN": "geheim=\nheim"}))
    assert "heim" not in str(caught.value)
