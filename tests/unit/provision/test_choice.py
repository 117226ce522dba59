"""Which instance type a stack rents, for models of which there is nothing but the header."""

from functools import cache

import pytest
from tests.planner.header_only import header

from rackllama.catalog.hardware import read_instances
from rackllama.host.errors import RackllamaError
from rackllama.host.lander.gguf import from_bytes
from rackllama.planning.headers import NamedHeaders
from rackllama.provision.choice import Demand, choose_instance, require_known_type

SMALL, R1 = "llama-3.1-8b-q4_k_m", "deepseek-r1-mla-ud-iq1_m"


@cache
def model(name: str) -> NamedHeaders:
    found = from_bytes(header(name))
    return NamedHeaders(name, (found,), found.data_offset + found.data_size)


def test_the_cheapest_that_the_model_fits_on_is_taken():
    small = choose_instance(Demand("small"), model(SMALL))
    prices = {name: instance.price.usd_per_hour for name, instance in read_instances().items() if instance.price}
    assert small.instance.name == min(prices, key=prices.__getitem__) == "g6.xlarge"
    assert small.is_free
    large = choose_instance(Demand("r1"), model(R1))
    assert large.plan.fits
    assert prices[large.instance.name] > 2


def test_only_what_is_offered_is_considered():
    taken = choose_instance(Demand("small"), model(SMALL), lambda instance: instance.gpu == "H100-80GB")
    assert taken.instance.name == "p5.4xlarge"
    with pytest.raises(RackllamaError, match="none is offered there"):
        choose_instance(Demand("small"), model(SMALL), lambda _: False)


def test_users_want_more_than_room():
    few, many = (choose_instance(Demand("small", users=users), model(SMALL)).instance for users in (1, 60))
    assert few.price.usd_per_hour < many.price.usd_per_hour


def test_a_type_that_is_told_is_taken_though_cheaper_ones_fit():
    told = choose_instance(Demand("small", instance_type="p5.48xlarge"), model(SMALL))
    assert (told.instance.name, told.is_free) == ("p5.48xlarge", False)
    assert told.as_data()["chosen_by"] == "config"


def test_a_type_that_is_too_small_is_refused_with_what_would_fit():
    with pytest.raises(RackllamaError, match=r"r1 does not fit on g6.xlarge: .* have no room") as caught:
        choose_instance(Demand("r1", instance_type="g6.xlarge"), model(R1))
    assert "leave instance_type out" in caught.value.remedy


def test_what_fits_nowhere_is_refused_with_why():
    with pytest.raises(RackllamaError, match="fits on no instance type that is offered") as caught:
        choose_instance(Demand("r1"), model(R1), lambda instance: instance.name in ("g6.xlarge", "g6e.xlarge"))
    assert "g6.xlarge" in caught.value.message


def test_a_type_is_known_and_rented_out_in_that_way():
    assert require_known_type("p5.48xlarge", "capacity-block").gpus == 8
    with pytest.raises(RackllamaError, match="is not to be had as capacity-block"):
        require_known_type("g6.xlarge", "capacity-block")
    with pytest.raises(RackllamaError, match="no instance type"):
        require_known_type("p9.huge", "spot")


def test_what_a_stack_exports_of_it():
    told = choose_instance(Demand("small", context=4096, parallel=2), model(SMALL)).as_data()
    assert (told["model"], told["instance"], told["fits"], told["usd_per_hour"]) == ("small", "g6.xlarge", True, 0.8048)
    assert (told["context"], told["parallel"]) == (4096, 2)
    assert told["price"] == "on demand in us-east-1, 2026-11-22"
    assert told["decode_tok_s"]["low"] < told["decode_tok_s"]["mid"] < told["decode_tok_s"]["high"]
    # 2.5 Gbit/s of its network card are 312.5 MB/s.
    assert told["landing_seconds_at_least"] == pytest.approx(told["landing_bytes"] / 312.5e6)
