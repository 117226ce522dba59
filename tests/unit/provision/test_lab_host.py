"""A lab as a resource: what is refused in a preview, and what counts as changed."""

from dataclasses import replace
from ipaddress import IPv4Address

import dill
import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab.hosts import Host
from rackllama.provision import lab_host
from rackllama.provision.lab_host import LabArgs, LabProvider, check_args, is_as_wanted

MAKER = "rackllama-lab/dev"
NEWS = {"lab": "stack", "count": 2.0, "suite": "bookworm", "maker": MAKER}  # numbers reach a provider as floats
BY_HAND = Host("stack", 1, IPv4Address("10.9.8.2"), "bookworm", "m1", "running")


def member(number, **more):
    return {"number": float(number), "address": f"10.9.8.{number + 1}", "state": "running", "made": "m1", **more}


def state(*members, **more):
    return {**NEWS, "members": list(members), "depot_answers": True, **more}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (LabArgs("stack", count=0), "cannot have 0 hosts"),
        (LabArgs("stack", suite="sid"), "the suite 'sid'. Remedy: choose one of: bookworm, trixie"),
        (LabArgs("stack-2"), "'stack-2' cannot name a lab"),
    ],
)
def test_what_cannot_become_a_lab_is_refused_with_a_remedy(args, told):
    with pytest.raises(RackllamaError) as refused:
        check_args(args, MAKER, [])
    assert told in str(refused.value)


def test_a_lab_that_a_person_made_is_not_adopted():
    with pytest.raises(RackllamaError, match="was made by hand") as refused:
        check_args(LabArgs("stack"), MAKER, [BY_HAND])
    assert refused.value.remedy == "choose another name, or remove it: rackllama lab stop stack"


def test_what_a_killed_run_of_the_same_stack_left_is_gone_on_with():
    check_args(LabArgs("stack", count=2), MAKER, [replace(BY_HAND, maker=MAKER)])


@pytest.mark.parametrize(("there", "removed"), [([], ["stack"]), ([replace(BY_HAND, maker=MAKER)], [])])
def test_a_failure_removes_the_lab_only_where_none_was_there_before(monkeypatch, there, removed):
    def fails(props):
        raise RackllamaError("no room", "make some")

    gone = []
    monkeypatch.setattr(lab_host, "lab_hosts", lambda _lab: there)
    monkeypatch.setattr(lab_host, "_start", fails)
    monkeypatch.setattr(lab_host, "_stop", lambda lab, _maker: gone.append(lab))

    with pytest.raises(RackllamaError, match="no room"):
        LabProvider().create(NEWS)
    assert gone == removed


def test_a_lab_that_is_as_wanted_needs_nothing():
    assert is_as_wanted(state(member(1), member(2)), NEWS, "m1")


@pytest.mark.parametrize(
    "olds",
    [
        state(member(1)),
        state(member(1), member(2), member(3)),
        state(member(1), member(2, state="exited")),
        state(member(1), member(2, made="another image")),
        state(member(1), member(2), suite="trixie"),
        state(member(1), member(2), depot_answers=False),
        {},
    ],
    ids=["a host is gone", "one too many", "stopped", "made from another image", "another Debian", "no depot", "empty"],
)
def test_what_is_not_as_wanted_is_put_right(olds):
    assert not is_as_wanted(olds, NEWS, "m1")


def test_the_provider_reaches_the_engine_by_its_name_alone():
    pickled = dill.dumps(LabProvider(), recurse=True)

    assert len(pickled) < 200
    assert b"rackllama.provision.lab_host" in pickled
