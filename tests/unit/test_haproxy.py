"""Whether the HAProxy of a host can be its gateway."""

import pytest

from rackllama.host.gateway.haproxy import Build, candidate_build, checks, installed_build

DEBIAN_12 = """\
HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/
Status: long-term supported branch - will stop receiving fixes around Q2 2027.
Feature list : -51DEGREES +EPOLL +LUA -MEMORY_PROFILING +OPENSSL +PCRE2 +PROMEX -QUIC
"""
DEBIAN_11 = """\
HA-Proxy version 2.2.9-2+deb11u6 2023/12/02 - https://haproxy.org/
Feature list : +EPOLL -KQUEUE +LUA +OPENSSL -QUIC
"""
POLICY = """\
haproxy:
  Installed: (none)
  Candidate: 1:2.8.5-1ubuntu3
"""


def broken(build: Build | None) -> dict[str, str]:
    return {check.id: check.found for check in checks(build) if not check.ok}


def test_what_debian_12_installs_can_be_the_gateway():
    assert broken(installed_build(DEBIAN_12)) == {}


def test_an_older_one_is_told_with_what_it_lacks():
    assert broken(installed_build(DEBIAN_11)) == {
        "haproxy version": "2.2.9-2+deb11u6",
        "haproxy features": "built without PROMEX",
    }


@pytest.mark.parametrize(("version", "ok"), [("2.4.0", True), ("2.10.1", True), ("3.0.11", True), ("2.3.99", False)])
def test_versions_are_compared_as_numbers(version, ok):
    assert (broken(Build(version)) == {}) is ok


def test_what_apt_would_install_is_judged_by_its_version_alone():
    assert candidate_build(POLICY) == Build("1:2.8.5-1ubuntu3")
    assert broken(candidate_build(POLICY)) == {}
    assert broken(candidate_build(POLICY.replace("2.8.5", "2.0.33"))) == {"haproxy version": "1:2.0.33-1ubuntu3"}


@pytest.mark.parametrize("policy", ["", POLICY.replace("1:2.8.5-1ubuntu3", "(none)")])
def test_where_nothing_is_known_yet_nothing_is_said(policy):
    assert checks(candidate_build(policy)) == []


def test_what_shows_no_version_is_none():
    assert "haproxy version" in broken(installed_build("haproxy: not found"))
