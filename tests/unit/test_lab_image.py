"""The recipe of a lab image: what it inherits from the machine, and when it counts as changed."""

from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab.image import (
    Recipe,
    apt_settings,
    environment_file,
    in_memory,
    machine_recipe,
    mmdebstrap_argv,
    parse_mirrors,
    sources,
)

RECIPE = Recipe("bookworm", ("deb http://mirror.example/debian bookworm main",), {"/etc/environment": "A=1\n"})


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, suite="trixie"),
        replace(RECIPE, sources=()),
        replace(RECIPE, files={"/etc/environment": "A=2\n"}),
        replace(RECIPE, packages=(*RECIPE.packages, "curl")),
        replace(RECIPE, hooks=RECIPE.hooks[1:]),
    ],
)
def test_the_digest_changes_with_everything_in_the_recipe(changed):
    assert changed.digest != RECIPE.digest


def test_the_digest_of_an_equal_recipe_is_the_same():
    assert replace(RECIPE, files=dict(RECIPE.files)).digest == RECIPE.digest


def test_sources_are_those_of_the_machine_for_the_suite_asked_for():
    assert sources("trixie", "http://mirror.example/debian", "http://mirror.example/security") == (
        "deb http://mirror.example/debian trixie main contrib non-free non-free-firmware",
        "deb http://mirror.example/debian trixie-updates main contrib non-free non-free-firmware",
        "deb http://mirror.example/security trixie-security main contrib non-free non-free-firmware",
    )


def test_a_machine_without_a_security_archive_gives_its_hosts_none():
    assert [line.split()[2] for line in sources("trixie", "http://mirror.example/debian", "")] == [
        "trixie",
        "trixie-updates",
    ]


def test_a_machine_that_is_no_debian_leaves_the_mirror_to_mmdebstrap():
    assert sources("trixie", "", "") == ()
    assert mmdebstrap_argv(replace(RECIPE, sources=()), Path("tree"), Path("out.tar"), Path("list"))[-1] == "out.tar"


def test_mirrors_are_told_apart_by_the_label_of_their_archive():
    archives = (
        "Debian http://a.example/debian/\nDebian http://b.example/debian/\nDebian-Security http://a.example/sec/\n"
    )

    assert parse_mirrors(archives) == ("http://a.example/debian/", "http://a.example/sec/")
    assert parse_mirrors("") == ("", "")


def test_apt_settings_keep_how_archives_are_reached_and_no_credentials():
    dump = (
        'Acquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::https::Proxy "http://me:secret@proxy.example:3128";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::cdrom::mount "/media/cdrom/";\n'
        'APT::Architecture "amd64";\n'
    )

    assert apt_settings(dump) == (
        'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::Check-Valid-Until "false";\n'
    )


def test_the_environment_has_no_credentials_and_names_the_bundle_only_with_own_authorities():
    environment = {"no_proxy": "localhost", "PIP_INDEX_URL": "https://me:secret@index.example/simple"}

    assert environment_file(environment, own_authorities=False) == "no_proxy=localhost\n"
    assert "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt\n" in environment_file({}, own_authorities=True)


def test_an_unknown_suite_is_refused_with_those_there_are():
    with pytest.raises(RackllamaError, match=r"'sid'.*bookworm, trixie"):
        machine_recipe("sid")


def test_a_build_in_memory_runs_the_same_command():
    assert in_memory(["mmdebstrap", "bookworm"], Path("/var/scratch"))[-3:] == [
        "/var/scratch",
        "mmdebstrap",
        "bookworm",
    ]
