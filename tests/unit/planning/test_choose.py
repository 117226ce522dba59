"""Which hardware to rent: the cheapest that does, with the reason why not each other."""

import datetime
from dataclasses import replace

from rackllama.planning.choose import Wish, choose, chosen
from rackllama.planning.hardware import Hardware, Price, from_names
from rackllama.planning.plan import Plan, Rate

from .plans import plan

DAY = datetime.date(2026, 1, 1)


def offer(name: str, dollars: float | None) -> Hardware:
    price = None if dollars is None else Price(dollars, "us-east-1", "made up", DAY)
    return replace(from_names("L4", "32GiB"), name=name, price=price)


def planned(*, fits: bool = True, users: int = 10) -> Plan:
    return replace(plan(), fits=fits, users={"acceptable": users}, decode_tok_s=Rate(8, 10, 12), reasons=("too large",))


def refusals(wish: Wish, **plans: Plan) -> dict[str, str]:
    offers = [offer(name, float(dollars)) for dollars, name in enumerate(plans, 1)]
    return {one.hardware.name: one.refusal for one in choose(offers, wish, lambda offer: plans[offer.name])}


def test_the_cheapest_that_fits_is_chosen():
    assert refusals(Wish(), small=planned(fits=False), large=planned(), huge=planned()) == {
        "small": "does not fit: too large",
        "large": "",
        "huge": "fits as well, and costs more",
    }


def test_users_want_a_rate():
    assert refusals(Wish(users=30), slow=planned(users=4), fast=planned(users=31)) == {
        "slow": "serves 4 users at an acceptable rate",
        "fast": "",
    }
    unknown = replace(planned(), decode_tok_s=None)
    assert refusals(Wish(users=30), unknown=unknown) == {"unknown": "how fast it answers there is not known"}


def test_what_costs_too_much_or_has_no_price_is_not_planned_for():
    considered = choose([offer("unpriced", None), offer("dear", 90)], Wish(budget=20), lambda _: planned())
    assert [(one.hardware.name, one.refusal) for one in considered] == [
        ("dear", "costs more than the budget"),
        ("unpriced", "nobody told what it costs"),
    ]
    assert [one.plan for one in considered] == [None, None]
    assert chosen(considered) is None


def test_what_is_plainly_too_small_is_not_planned_for():
    (small,) = choose([offer("small", 1)], Wish(least_bytes=400 * 10**9), lambda _: planned())
    assert small.refusal == "54.5 GiB of memory in all, and 372.5 GiB are needed"
    assert small.plan is None


def test_data_tell_rate_and_refusal():
    (one,) = choose([offer("one", 3)], Wish(), lambda _: planned())
    assert one.as_data() == {
        "hardware": "one",
        "cost_per_hour": 3.0,
        "fits": True,
        "decode_tok_s_mid": 10,
        "refusal": "",
    }
