"""Around Pulumi: what may be moved to another zone, which inventory goes with a stack, and Ctrl-C."""

import os
import signal
import subprocess
import sys

import pytest

import rackllama.provision.stacks
from rackllama.host.errors import RackllamaError
from rackllama.lab.up import CHECKOUT
from rackllama.provision.pulumi_cli import PulumiCli
from rackllama.provision.stacks import (
    Stack,
    inventory_of,
    is_named,
    left_words,
    projects,
    run_shown,
    running_words,
    tied_to_zone,
)
from rackllama.provision.state import INSTANCE, VOLUME, Resource

# Ends in order when it is interrupted, as Pulumi does: it finishes what it is about, and says so.
PROGRAM = """
import signal
def end(*_):
    print("ended in order", flush=True)
    raise SystemExit(1)
signal.signal(signal.SIGINT, end)
print("under way", flush=True)
signal.pause()
"""
SHOWING = """
import os, sys
from pathlib import Path
from rackllama.host.errors import RackllamaError
from rackllama.provision.stacks import run_shown
try:
    run_shown([sys.executable, "-c", sys.argv[1]], Path.cwd(), os.environ, keep=sys.argv[2] == "keep")
except RackllamaError as error:
    print(error)
"""


def resource(kind, name):
    return Resource(f"urn:pulumi:dev::rackllama-aws::{kind}::{name}", kind, name, f"{name}-id")


HOST, VOLUME_OF_MODELS, NETWORK = (
    resource(INSTANCE, "gpu1"),
    resource(VOLUME, "models"),
    resource("aws:ec2/vpc:Vpc", "net"),
)


@pytest.mark.parametrize(
    ("before", "after", "tied"),
    [
        ([], [NETWORK], ""),
        ([], [NETWORK, HOST], ""),  # made a moment ago, beside another that found no room
        ([NETWORK, HOST], [NETWORK, HOST], "gpu1"),
        ([NETWORK, HOST], [NETWORK], ""),  # AWS ended it since
        ([], [NETWORK, HOST, VOLUME_OF_MODELS], ""),  # empty yet
        ([VOLUME_OF_MODELS], [NETWORK, VOLUME_OF_MODELS], "models"),
    ],
)
def test_a_host_or_a_volume_that_was_there_is_not_moved_to_another_zone(before, after, tied):
    assert tied_to_zone(before, after) == tied


def test_what_runs_though_the_rest_found_no_room_is_told_to_be_billed():
    assert running_words([NETWORK, HOST], "aws") == ("running and billed: gpu1; to end that: rackllama stack down aws")
    assert running_words([NETWORK], "aws") == ""


def test_a_volume_that_was_given_up_with_its_zone_is_told_with_how_to_remove_it():
    made = {VOLUME_OF_MODELS.id: VOLUME_OF_MODELS}

    assert "aws ec2 delete-volume --volume-id models-id" in left_words(made, [NETWORK])
    assert left_words(made, [NETWORK, VOLUME_OF_MODELS]) == ""


@pytest.mark.parametrize(
    ("listed", "name", "same"),
    [
        ("dev", "dev", True),
        ("acme/dev", "acme/dev", True),
        ("dev", "acme/dev", True),  # of the organisation that is logged in to, which the listing leaves out
        ("acme/rackllama-aws/dev", "acme/dev", True),
        ("acme/dev", "dev", True),
        ("other/dev", "acme/dev", False),
        ("acme/prod", "acme/dev", False),
    ],
)
def test_a_stack_is_known_by_its_name_with_and_without_its_organisation(listed, name, same):
    assert is_named(listed, name) is same


def test_a_pulumi_that_hangs_or_waits_for_an_answer_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(rackllama.provision.stacks, "ANSWER_SECONDS", 0.5)
    pulumi = tmp_path / "pulumi"
    pulumi.write_text("#!/bin/sh\nread answer || exec sleep 600\n")
    pulumi.chmod(0o755)

    with pytest.raises(RackllamaError, match=r"has not answered for .* in 0\.5 s"):
        Stack(tmp_path, "dev", PulumiCli(pulumi, "3.999.0"), os.environ).outputs()


def test_an_output_that_is_secret_is_unknown(tmp_path):
    pulumi = tmp_path / "pulumi"
    pulumi.write_text("""#!/bin/sh\necho '{"costs": "[secret]", "plan": {"gpus": 8}}'\n""")
    pulumi.chmod(0o755)
    stack = Stack(tmp_path, "dev", PulumiCli(pulumi, "3.999.0"), os.environ)

    assert stack.outputs() == {"plan": {"gpus": 8}}


@pytest.mark.parametrize(
    "words",
    [
        "error: the stack is currently locked by 1 lock(s).",
        "error: [409] Conflict: Another update is currently in progress.",
    ],
)
def test_a_locked_stack_is_told_with_the_line_that_unlocks_it(tmp_path, words):
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(f"#!/bin/sh\necho '{words}'\nexit 255\n")
    pulumi.chmod(0o755)

    with pytest.raises(RackllamaError, match="is locked: another run goes on") as refused:
        Stack(tmp_path, "dev", PulumiCli(pulumi, "3.999.0"), os.environ).stream("up")
    assert "pulumi cancel --yes" in refused.value.remedy


def test_the_inventory_of_a_stack_is_the_one_that_reads_its_project(tmp_path):
    (tmp_path / "stacks" / "aws").mkdir(parents=True)
    (tmp_path / "stacks" / "aws" / "Pulumi.yaml").write_text("name: any\n")
    for name, project in (("lab", "lab"), ("cloud", "aws")):
        (tmp_path / "inventories" / name).mkdir(parents=True)
        (tmp_path / "inventories" / name / "x.pulumi.yml").write_text(f"project: ../../stacks/{project}\n")

    assert projects(tmp_path) == ["aws"]
    assert inventory_of("aws", tmp_path) == "inventories/cloud"
    with pytest.raises(RackllamaError, match="no inventory reads the stacks of baremetal"):
        inventory_of("baremetal", tmp_path)


def test_what_a_program_says_is_shown_as_it_comes_and_kept(capfd, tmp_path):
    ended = run_shown(["sh", "-c", "echo one; echo two >&2; exit 3"], tmp_path, os.environ)

    assert (ended.code, ended.said) == (3, "one\ntwo\n")
    assert capfd.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("kept", ["keep", "do not"])
def test_ctrl_c_lets_the_program_end_its_own_way_and_says_what_is_left(kept):
    argv = [sys.executable, "-c", SHOWING, PROGRAM, kept]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as shown:
        assert shown.stdout.readline() == "under way\n"
        os.killpg(shown.pid, signal.SIGINT)  # as a terminal sends it, to all of them
        said = shown.stdout.read()

    assert said.startswith("ended in order\n")
    assert "was interrupted; what it made is in the stack's state, and may be billed" in said
    assert "go on with the same command" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_kill_and_a_hang_up_let_pulumi_end_its_own_way_too(number):
    argv = [sys.executable, "-c", SHOWING, PROGRAM, "keep"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as shown:
        assert shown.stdout.readline() == "under way\n"
        shown.send_signal(number)
        said = shown.stdout.read()

    assert said.startswith("ended in order\n")
    assert "was interrupted" in said


def test_a_program_that_nobody_reads_any_more_comes_to_its_end(tmp_path):
    told = tmp_path / "told"
    program = f"""
import sys
print("under way", flush=True)
sys.stdin.readline()
for _ in range(3):
    print("creating", flush=True)
open({str(told)!r}, "w").write("all made")
"""
    argv = [sys.executable, "-c", SHOWING, program, "keep"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shown:
        assert shown.stdout.readline() == "under way\n"
        shown.stdout.close()
        shown.stdin.write("go on\n")
        shown.stdin.close()
        code = shown.wait(timeout=30)

    assert (code, told.read_text()) == (0, "all made")


@pytest.mark.parametrize(
    ("given", "run"),
    [([], "rackllama lab stop lab"), (["STACK=aws", "YES=1"], "rackllama stack down aws --yes")],
)
def test_make_takes_a_stack_and_a_yes_from_its_command_line_alone(given, run):
    environment = {"PATH": os.environ["PATH"], "STACK": "lab", "YES": "1"}
    argv = ["make", "--dry-run", "down", *given]
    done = subprocess.run(argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.splitlines()[-1] == run
