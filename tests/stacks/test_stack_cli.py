"""`rackllama stack` on a small project: other zones are tried, what remains is told, an interrupt ends in order."""

import json
import os
from pathlib import Path

import pytest

from rackllama.cli import main
from rackllama.host.errors import RackllamaError
from rackllama.provision.stacks import Stack, bring_up, open_stack
from rackllama.provision.teardown import teardown

SMALL = Path(__file__).with_name("small")
FULL = "InsufficientInstanceCapacity: We currently do not have sufficient p5.48xlarge capacity"
QUOTA = "VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 0 allows"


@pytest.fixture
def checkout(stacks, tmp_path, monkeypatch) -> Path:
    """A checkout whose one project is the small one, of a user who has chosen no backend."""
    made = stacks(SMALL)
    for name in ("PATH", "PYTHONPATH", "PULUMI_HOME"):
        monkeypatch.setenv(name, made.environment[name])
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user"))
    root = tmp_path / "checkout"
    (root / "stacks").mkdir(parents=True)
    (root / "stacks" / "small").symlink_to(made.folder)
    return root


@pytest.fixture
def stack(checkout) -> Stack:
    """Its stack `dev`, not yet up."""
    stack = open_stack("small", "dev", checkout, os.environ)
    stack.select()
    return stack


def refuse(stack, **refusals):
    """Let AWS refuse hosts in each of these zones (`zone_a` for zone-a) with those words."""
    for zone, words in refusals.items():
        stack.read("config", "set", "--path", f'refusals["{zone.replace("_", "-")}"]', words)


def zone_of(stack):
    return stack.config().get("zone")


def test_a_zone_without_capacity_is_explained_and_the_next_one_tried(stack, capfd):
    refuse(stack, zone_a=FULL)

    bring_up(stack)

    told = capfd.readouterr().err
    assert "zone-a: AWS has no free machine of this type in this zone now" in told
    assert "AWS says: InsufficientInstanceCapacity: We currently do not have sufficient p5.48xlarge capacity" in told
    assert [line for line in told.splitlines() if line.startswith("trying")] == ["trying zone-b instead"]
    assert (stack.outputs()["hosts"][0]["address"], zone_of(stack)) == ("i-zone-b", "zone-b")


def test_where_no_zone_is_left_the_zones_are_named_and_the_configuration_is_as_it_was(stack):
    refuse(stack, zone_a=FULL, zone_b=FULL)

    with pytest.raises(RackllamaError, match=r"no capacity for the stack small \(dev\) in zone-a, zone-b\.") as none:
        bring_up(stack)

    assert "capacity block" in none.value.remedy
    assert zone_of(stack) is None
    made = {resource.name for resource in stack.resources() if resource.custom}
    assert made == {"network", "models"}  # which `down` takes, and another `up` goes on from


def test_a_quota_is_told_at_once_as_no_zone_has_another(stack, capfd):
    refuse(stack, zone_a=QUOTA)

    with pytest.raises(RackllamaError, match=r"in zone-a\. ") as refused:
        bring_up(stack)

    assert "Service Quotas" in refused.value.remedy
    assert "trying" not in capfd.readouterr().err


def test_any_other_failure_is_left_to_the_user(stack):
    refuse(stack, zone_a="UnauthorizedOperation: You are not authorized to perform this operation")

    with pytest.raises(RackllamaError, match=r"`pulumi up` of the stack small \(dev\) failed, as it says above"):
        bring_up(stack)


def test_what_a_destroy_leaves_is_listed_with_its_cost_before_and_is_left(stack):
    bring_up(stack)

    found = teardown(str(stack), stack.state(), stack.outputs()["costs"])
    destroyed = stack.stream("destroy", "--yes", "--skip-preview")

    assert sorted(resource.name for resource in found.goes) == ["host", "network"]
    assert [resource.name for resource in found.stays] == ["models"]
    assert "model volume [vol-1]: about 40.00 $ a month" in found.staying()
    assert (destroyed.code, stack.resources()) == (0, [])


def test_state_of_whoever_has_chosen_no_backend_lies_in_files_that_only_they_read(stack):
    folder = Path(stack.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))

    assert folder.stat().st_mode & 0o077 == 0


@pytest.fixture
def rackllama(stack, checkout, monkeypatch, capfd):
    """Runs `rackllama stack` in that checkout; gives exit code, stdout and stderr."""
    monkeypatch.setattr("rackllama.provision.cli.CHECKOUT", checkout)

    def run(*arguments):
        code = main(["stack", *arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def test_from_nothing_up_and_down_again(rackllama, stack):
    assert rackllama("up", "small", "--yes", "--hosts-only")[0] == 0

    [listed] = json.loads(rackllama("list", "--json")[1])
    assert (listed["stack"], listed["name"], listed["hosts"]) == ("small", "dev", ["gpu1 i-zone-a"])
    assert (listed["usd_per_hour"], listed["resources"]) == (2.0, 3)

    dry = json.loads(rackllama("down", "small", "--dry-run", "--json")[1])
    assert [thing["name"] for thing in dry["remains"]] == ["models"]
    assert dry["usd_per_month"] == 40.0
    assert {"network", "host", "models"} <= {resource.name for resource in stack.resources()}

    code, said, _ = rackllama("down", "small", "--yes")
    assert code == 0
    assert said.index("model volume [vol-1]: about 40.00 $ a month") < said.index("small (dev) is down")
    assert said.rindex("model volume [vol-1]: about 40.00 $ a month") > said.index("small (dev) is down")
    assert rackllama("list")[1] == "small (dev): down\n"
    nothing = f"small (dev): nothing to destroy in the state at {stack.backend}\n"  # there may be more elsewhere
    assert rackllama("down", "small", "--yes")[1] == nothing


def test_down_and_list_fail_while_something_may_exist_that_the_state_does_not_know(rackllama, stack, engine):
    if not engine.is_double:
        pytest.skip("the real engine's state is not written by hand")
    [path] = Path(stack.backend.removeprefix("file://")).glob(".pulumi/stacks/*/dev.json")
    state = json.loads(path.read_text())
    urn = "urn:pulumi:dev::rackllama-small::aws:ec2/instance:Instance::gpu1"
    making = {"type": "creating", "resource": {"urn": urn, "type": "aws:ec2/instance:Instance", "custom": True}}
    state["checkpoint"]["latest"]["pending_operations"] = [making]
    path.write_text(json.dumps(state))

    for command in (["down", "small", "--yes"], ["list"]):
        code, said, _ = rackllama(*command)
        assert (code, "gpu1: may exist, unknown to the state: look for it" in said) == (1, True)
        assert "nothing to destroy" not in said


def test_what_is_protected_is_left_out_of_the_destroy_and_stays_in_the_state(rackllama, stack, engine):
    if engine.is_double:
        pytest.skip("the test double knows no --exclude-protected")
    stack.read("config", "set", "protected", "true")
    bring_up(stack)

    code, said, _ = rackllama("down", "small", "--yes")

    left = [resource for resource in stack.resources() if resource.custom]
    assert code == 0
    assert [(resource.name, resource.stays) for resource in left] == [
        ("network", "needed by what is protected"),
        ("models", "protected"),
    ]
    assert all(f"{resource.words}: {resource.stays}" in said for resource in left)


def test_nothing_is_made_or_destroyed_where_nobody_can_say_yes(rackllama, stack):
    code, _, complaint = rackllama("up", "small")

    assert (code, complaint) == (2, "rackllama: nobody is there to ask\n  remedy: give --yes\n")
    assert stack.resources() == []


def test_a_refresh_before_the_question_changes_no_state(rackllama, stack):
    bring_up(stack)
    before = stack.read("stack", "export")

    previewed, asked = rackllama("preview", "small", "--refresh"), rackllama("up", "small", "--refresh")

    assert (previewed[0], asked[0]) == (0, 2)  # nobody is there to ask
    assert "Refreshing (dev)" not in previewed[1] + asked[1]
    assert stack.read("stack", "export") == before


def test_a_project_that_is_none_is_told_with_those_there_are(rackllama):
    assert rackllama("up", "azure")[2] == "rackllama: there is no stack 'azure'\n  remedy: choose one of: small\n"
