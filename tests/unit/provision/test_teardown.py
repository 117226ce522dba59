"""What a destroy takes and leaves, and what is up and costs, from states as `pulumi stack export` prints them."""

from datetime import UTC, datetime

import pytest

from rackllama.provision.standing import standing, standing_words
from rackllama.provision.state import INSTANCE, VOLUME, State, state_of
from rackllama.provision.teardown import monthly, teardown

STACK = "urn:pulumi:dev::rackllama-aws"
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOST_COST = {"what": "host gpu1, p5.48xlarge", "usd": 55.04, "unit": "hour", "survives_destroy": False, "id": "i-1"}
VOLUME_COST = {"what": "model volume, 500 GiB", "usd": 40.0, "unit": "month", "survives_destroy": True, "id": "vol-1"}


def entry(kind, name, id_="", **more):
    return {"urn": f"{STACK}::{kind}::{name}", "type": kind, "custom": True, "id": id_, **more}


EXPORTED = {
    "version": 3,
    "deployment": {
        "resources": [
            entry("pulumi:pulumi:Stack", "rackllama-aws-dev", custom=False),
            entry("pulumi:providers:aws", "default", "p-1"),
            entry("rackllama:aws:GpuHost", "gpu1", custom=False),
            entry(INSTANCE, "gpu1", "i-1", created="2026-03-01T12:00:00.5Z"),
            entry(VOLUME, "models", "vol-1", retainOnDelete=True, created="2026-03-01T12:05:00Z"),
            entry("aws:ec2/capacityBlockReservation:CapacityBlockReservation", "block", "cr-1", protect=True),
        ]
    },
}


def test_a_destroy_takes_what_is_neither_retained_nor_protected():
    found = teardown("aws (dev)", state_of(EXPORTED), [HOST_COST, VOLUME_COST])

    assert [resource.id for resource in found.goes] == ["i-1"]
    assert [(resource.id, resource.stays) for resource in found.stays] == [("vol-1", "retained"), ("cr-1", "protected")]
    assert found.has_protected
    assert found.usd_per_month == pytest.approx(40.0)


def test_what_a_protected_resource_needs_stays_with_it():
    network, subnet = entry("aws:ec2/vpc:Vpc", "net", "vpc-1"), entry("aws:ec2/subnet:Subnet", "sub", "subnet-1")
    subnet["dependencies"] = [network["urn"]]
    kept = entry(VOLUME, "models", "vol-1", protect=True, dependencies=[subnet["urn"]])
    resources = [network, subnet, kept, entry(INSTANCE, "gpu1", "i-1", dependencies=[subnet["urn"]])]

    found = teardown("aws (dev)", state_of({"deployment": {"resources": resources}}), [])

    assert [resource.name for resource in found.goes] == ["gpu1"]
    assert [(resource.name, resource.stays) for resource in found.stays] == [
        ("net", "needed by what is protected"),
        ("sub", "needed by what is protected"),
        ("models", "protected"),
    ]


def test_what_goes_and_what_remains_is_told_with_its_cost():
    found = teardown("aws (dev)", state_of(EXPORTED), [HOST_COST, VOLUME_COST])

    assert found.going().splitlines() == [
        "aws (dev): this will be destroyed",
        "  - aws:ec2/instance:Instance gpu1 (i-1)",
    ]
    assert found.staying().splitlines() == [
        "aws (dev): this remains, and is billed on",
        "  = aws:ebs/volume:Volume models (vol-1): retained",
        "  = aws:ec2/capacityBlockReservation:CapacityBlockReservation block (cr-1): protected",
        "  $ model volume, 500 GiB [vol-1]: about 40.00 $ a month",
    ]


def test_where_no_costs_were_exported_what_remains_is_not_told_to_be_free():
    assert "what it costs is not known" in teardown("aws (dev)", state_of(EXPORTED), []).staying()


def test_a_stack_that_leaves_nothing_says_so():
    found = teardown("lab (dev)", State(), [])

    assert (found.going(), found.staying()) == (
        "lab (dev): nothing will be destroyed",
        "lab (dev): nothing remains after it",
    )


@pytest.mark.parametrize(
    ("cost", "month"),
    [
        ({"usd": 40.0, "unit": "month"}, 40.0),
        ({"usd": 0.1, "unit": "hour"}, 73.0),
        ({"usd": 0.09, "unit": "GB"}, None),
        ({"usd": None, "unit": "month"}, None),
    ],
)
def test_a_month_is_counted_as_aws_counts_it(cost, month):
    assert monthly(cost) == (None if month is None else pytest.approx(month))


def test_a_price_that_nobody_knows_is_not_guessed():
    words = teardown("aws (dev)", State(), [{**VOLUME_COST, "usd": None, "note": "no price of eu-north-1"}]).staying()

    assert words.endswith("model volume, 500 GiB [vol-1]: price not known (no price of eu-north-1)")


def test_a_host_left_running_is_told_with_the_dollars_so_far():
    outputs = {"hosts": [{"name": "gpu1", "address": "10.0.1.12"}], "costs": [HOST_COST, VOLUME_COST]}

    found = standing(("aws", "dev"), state_of(EXPORTED), outputs, NOW)

    assert found.usd_so_far == pytest.approx(24 * 55.04, rel=1e-4)
    assert standing_words(found).splitlines() == [
        "aws (dev): resources: 3, 55.04 $ an hour, since 2026-03-01 12:00 UTC, at most 1320.95 $ so far",
        "  gpu1 10.0.1.12",
    ]
    assert found.as_data()["since"] == "2026-03-01T12:00:00.500000+00:00"


def test_a_host_that_a_destroy_took_is_not_listed_by_the_outputs_it_left():
    host = {"name": "gpu1", "address": "10.0.1.12", "console": {"kind": "aws", "instance": "i-1"}}
    left = state_of({"deployment": {"resources": [entry(VOLUME, "models", "vol-1", protect=True)]}})

    found = standing(("aws", "dev"), left, {"hosts": [host], "costs": [HOST_COST]}, NOW)

    assert standing_words(found).splitlines() == [
        "aws (dev): resources: 1, price not known",
        "  gone, and named by outputs older than the state: gpu1",
    ]
    there = standing(("aws", "dev"), state_of(EXPORTED), {"hosts": [host], "costs": [HOST_COST]}, NOW)
    assert (there.hosts, there.gone) == (("gpu1 10.0.1.12",), ())


def test_a_host_made_anew_is_counted_from_then():
    exported = {
        "deployment": {
            "resources": [
                entry("aws:ec2/vpc:Vpc", "net", "vpc-1", created="2026-01-01T00:00:00Z"),
                entry(INSTANCE, "gpu1", "i-1", created="2026-03-02T11:00:00Z"),
            ]
        }
    }

    assert standing(("aws", "dev"), state_of(exported), {"costs": [HOST_COST]}, NOW).usd_so_far == pytest.approx(55.04)


def test_an_empty_stack_is_down_and_an_unknown_price_is_not_counted():
    down = standing(("aws", "dev"), State(), {}, NOW)
    unknown = standing(("aws", "dev"), state_of(EXPORTED), {"costs": [{**HOST_COST, "usd": None}]}, NOW)

    failed = standing(("aws", "dev"), state_of(EXPORTED), {}, NOW)  # no `up` has come to its end

    assert standing_words(down) == "aws (dev): down"
    assert "price not known" in standing_words(failed)
    assert "price not known" in standing_words(unknown)
    assert (unknown.usd_per_hour, unknown.usd_so_far) == (None, None)


def test_what_was_being_made_when_pulumi_was_killed_is_never_told_to_be_nothing():
    resource = {"urn": f"{STACK}::{INSTANCE}::gpu1", "type": INSTANCE, "custom": True}
    killed = state_of({"deployment": {"pending_operations": [{"resource": resource, "type": "creating"}]}})

    found = standing(("aws", "dev"), killed, {}, NOW)

    told = "  ? aws:ec2/instance:Instance gpu1: may exist, unknown to the state: look for it"
    assert told in standing_words(found).splitlines()
    assert "down" not in standing_words(found)
    assert found.as_data()["unknown"] == ["aws:ec2/instance:Instance gpu1"]
    assert teardown("aws (dev)", killed, []).staying().splitlines()[:2] == [
        "aws (dev): this may exist, and be billed",
        told,
    ]


def test_what_is_being_deleted_is_in_the_state_still_and_not_told_twice():
    gone = {"resource": entry(INSTANCE, "gpu1", "i-1"), "type": "deleting"}

    assert state_of({"deployment": {"pending_operations": [gone]}}) == State()
