"""What AWS refuses for lack of capacity or quota: told in words, and whether another zone may help."""

import pytest

from rackllama.provision.capacity_failures import MEANINGS, Shortage, find_shortages, remedy, words, zone_order

NO_P5 = (
    "    error:   sdk-v2/provider2.go:572: sdk.helper_schema: creating EC2 Instance: operation error EC2: "
    "RunInstances, https response error StatusCode: 500, RequestID: 989de2c1-f2f8-460c-a127-847a8493109a, api error "
    "InsufficientInstanceCapacity: We currently do not have sufficient p5.48xlarge capacity in the Availability Zone "
    "you requested (us-east-1a). Our system will be working on provisioning additional capacity."
)
NOT_OFFERED = (
    "api error Unsupported: Your requested instance type (p5.48xlarge) is not supported in your requested Availability "
    "Zone (us-east-1e)."
)


def codes(output):
    return [shortage.code for shortage in find_shortages(output)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (NO_P5, "InsufficientInstanceCapacity"),
        (NOT_OFFERED, "Unsupported"),
        (
            (
                "error: An error occurred (VcpuLimitExceeded) when calling the RunInstances operation (reached max "
                "retries: 4): You have requested more vCPU capacity than your current vCPU limit of 0 allows"
            ),
            "VcpuLimitExceeded",
        ),
        (
            (
                "error: waiting for EC2 Instance create: unexpected state 'terminated', wanted target "
                "'running'. last error: Server.InsufficientInstanceCapacity: Insufficient capacity"
            ),
            "InsufficientInstanceCapacity",
        ),
    ],
)
def test_a_refusal_is_known_however_it_arrives(line, code):
    assert codes(f"Diagnostics:\n  aws:ec2:Instance (gpu1):\n{line}\n") == [code]


@pytest.mark.parametrize(
    "line",
    [
        "api error UnauthorizedOperation: You are not authorized to perform this operation.",
        "api error Unsupported: The requested configuration is currently not supported.",
        "  ~ tags: { note: InsufficientInstanceCapacity }",
        "error: zone: Unsupported: Availability Zone",
    ],
)
def test_nothing_else_is_taken_for_one(line):
    assert codes(line) == []


def test_what_is_printed_twice_is_told_once():
    assert codes(f"{NO_P5}\n{NOT_OFFERED}\n{NO_P5}") == ["InsufficientInstanceCapacity", "Unsupported"]


def test_a_refusal_is_told_in_words_with_its_zone_and_what_aws_says():
    assert words(find_shortages(NOT_OFFERED), "us-east-1e").splitlines() == [
        "us-east-1e: this type of instance is not offered in this zone",
        (
            "  AWS says: Unsupported: Your requested instance type (p5.48xlarge) is not supported in your requested "
            "Availability Zone (us-east-1e)."
        ),
    ]


@pytest.mark.parametrize("code", ["VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "InstanceLimitExceeded"])
def test_a_quota_is_of_the_whole_region_and_no_zone_helps(code):
    assert not MEANINGS[code].elsewhere
    assert "Service Quotas" in remedy([Shortage(code, "")])
    assert "capacity block" not in remedy([Shortage(code, "")])


def test_each_code_has_a_remedy():
    assert [code for code in MEANINGS if not remedy([Shortage(code, "")])] == []


@pytest.mark.parametrize(
    ("zones", "zone", "order"),
    [
        (["a", "b", "c"], None, ["a", "b", "c"]),
        (["a", "b", "c"], "b", ["b", "c", "a"]),
        (["a", "b"], "d", ["d", "a", "b"]),
        ([], "a", ["a"]),
        ([], None, []),
    ],
)
def test_zones_are_tried_from_the_one_that_is_set(zones, zone, order):
    assert zone_order(zones, zone) == order
