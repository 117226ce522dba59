"""Plans for published setups, and for what cannot be."""

import random
from dataclasses import replace

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.planning import compute
from rackllama.planning.fit import Room, Search, Way, largest
from rackllama.planning.graph.scheduler import Devices
from rackllama.planning.hardware import Hardware, from_instance, from_names
from rackllama.planning.plan import Plan, Reserve, Wanted
from rackllama.planning.planner import make_plan, room_of, serving_of
from rackllama.planning.serving import CELLS_MULTIPLE, Placement, Serving, by_shares

from .models import shape_of

MIB, GIB = 2**20, 2**30
# As Modelfiles of January 2025 had it: whole layers, no flash attention, an f16 cache.
CLASSIC = Wanted(is_classic=True, context=2048)


def plan(model: str, gpus: str, ram: str | None, wanted: Wanted | None = None, **known: str) -> Plan:
    return make_plan(shape_of(model), from_names(gpus, ram, **known), wanted or Wanted())


def gpu_memory_is_kept(made: Plan) -> bool:
    return all(device.free_mib is not None and device.free_mib >= 0 for device in made.devices)


class TestPublishedSetups:
    """What people found out by trying."""

    def test_four_rtx_4090_hold_28_layers_of_ud_iq1_m(self) -> None:
        made = plan("deepseek-r1-mha-ud-iq1_m", "4xRTX4090", "384GiB", CLASSIC)
        assert (made.fits, made.num_gpu) == (True, 28)
        assert not plan("deepseek-r1-mha-ud-iq1_m", "4xRTX4090", "384GiB", replace(CLASSIC, num_gpu=33)).fits

    def test_eight_l20_hold_48_layers_of_q4_k_m(self) -> None:
        made = plan("deepseek-r1-mha-q4_k_m", "8xL20", "2TiB", CLASSIC)
        assert (made.fits, made.num_gpu) == (True, 48)

    def test_one_card_of_24_gb_holds_7_layers_of_ud_iq1_s(self) -> None:
        made = plan("deepseek-r1-mha-ud-iq1_s", "RTX4090", "384GiB", replace(CLASSIC, context=8192))
        assert (made.fits, made.num_gpu) == (True, 7)

    def test_ud_iq1_s_fits_wholly_on_two_h100(self) -> None:
        made = plan("deepseek-r1-mha-ud-iq1_s", "2xH100-80GB", "256GiB", CLASSIC)
        assert (made.fits, made.num_gpu, made.way) == (True, 62, Way.ON_GPUS)

    def test_q4_k_m_fits_on_eight_h100(self) -> None:
        made = plan("deepseek-r1-mha-q4_k_m", "8xH100-80GB", "2TiB", CLASSIC)
        assert (made.fits, made.num_gpu) == (True, 62)
        assert sum(device.weights_mib for device in (*made.devices, made.host)) * 2**20 == pytest.approx(
            404e9, rel=0.01
        )

    def test_a_context_of_131072_in_the_old_layout_is_refused_with_its_655_gb(self) -> None:
        made = plan("deepseek-r1-mha-q4_k_m", "8xL20", "384GiB", replace(CLASSIC, context=131072))
        assert not made.fits
        assert any("655 GB" in reason for reason in made.reasons)
        assert any("--context" in remedy for remedy in made.remedies)

    @pytest.mark.parametrize(("model", "gib"), [("deepseek-r1-mha-ud-iq1_m", 200), ("deepseek-r1-mha-q4_k_m", 500)])
    def test_rules_of_thumb_for_memory_of_all_kinds_together(self, model: str, gib: int) -> None:
        """One GPU of 48 GB and the rest as RAM: so much is enough, and three quarters are not."""
        enough = plan(model, "L40S", f"{gib - 45}GiB", CLASSIC)
        assert enough.fits
        assert not plan(model, "L40S", f"{gib * 3 // 4 - 45}GiB", CLASSIC).fits

    def test_a_70b_of_8_bits_does_not_fit_64_gb_with_a_card_of_8_gb(self) -> None:
        made = plan("llama-3.3-70b-q8_0", "RTX4060Ti-8GB", "64GiB")
        assert not made.fits
        assert made.remedies


class TestPreference:
    """All on GPUs before experts on the host, before whole layers there."""

    def test_all_on_gpus_where_they_have_room(self) -> None:
        made = make_plan(shape_of("deepseek-r1-mla-q4_k_m"), from_instance("p5.48xlarge"), Wanted())
        assert (made.way, made.num_gpu, made.placement.experts_on_host) == (Way.ON_GPUS, 62, 0)
        assert made.cost_per_hour == pytest.approx(55.04)
        assert made.max_context == 163840
        assert gpu_memory_is_kept(made)
        # Nobody gets much less than another: the fullest GPU is as empty as can be.
        assert max(device.layers for device in made.devices) <= 10

    def test_experts_stay_on_the_host_and_as_few_as_can_be(self) -> None:
        made = plan("deepseek-r1-mla-ud-iq1_m", "4xRTX4090", "384GiB")
        assert (made.fits, made.way, made.num_gpu) == (True, Way.EXPERTS_ON_HOST, 62)
        assert gpu_memory_is_kept(made)
        fewer = replace(Wanted(), experts_on_host=made.placement.experts_on_host - 1)
        assert not plan("deepseek-r1-mla-ud-iq1_m", "4xRTX4090", "384GiB", fewer).fits

    def test_a_dense_model_leaves_whole_layers_on_the_host(self) -> None:
        made = plan("llama-3.3-70b-q4_k_m", "RTX4090", "64GiB")
        assert (made.fits, made.way) == (True, Way.LAYERS_ON_HOST)
        assert not plan("llama-3.3-70b-q4_k_m", "RTX4090", "64GiB", Wanted(num_gpu=made.num_gpu + 1)).fits

    def test_a_host_without_gpus_holds_all(self) -> None:
        made = plan("qwen3-30b-a3b-q4_k_m", "none", "64GiB")
        assert (made.fits, made.way, made.num_gpu, made.devices) == (True, Way.ON_HOST, 0, ())

    def test_the_larger_gpu_gets_more_layers(self) -> None:
        made = plan("llama-3.3-70b-q4_k_m", "1xL40S,1xRTX4090", "64GiB")
        assert made.fits
        assert made.placement.layers[0] > made.placement.layers[1]

    def test_unified_memory_is_counted_once(self) -> None:
        made = plan("llama-3.3-70b-q4_k_m", "M2-Ultra", "192GiB")
        assert (made.fits, made.way) == (True, Way.ON_GPUS)
        assert not plan("llama-3.3-70b-q4_k_m", "M2-Ultra", "40GiB").fits


def test_the_context_that_is_told_as_the_largest_fits_and_a_larger_one_does_not() -> None:
    shape, host = shape_of("llama-3.3-70b-q4_k_m"), from_names("2xRTX4090", "64GiB")
    made = make_plan(shape, host, Wanted())
    search = Search(shape, serving_of(shape, Wanted(context=made.max_context)), room_of(host, Reserve()))
    assert search.measure(made.placement).fits
    wider = replace(search, serving=replace(search.serving, context=made.max_context + 256))
    assert not wider.measure(made.placement).fits


def test_what_only_cuda_needs_stands_apart() -> None:
    """Large batches are computed on the GPU, with the host's weights copied there: a matrix of R1's is gigabytes."""
    made = plan("deepseek-r1-mla-q4_k_m", "RTX4090", "512GiB")
    assert made.devices[0].cuda_only_mib > 1500
    assert made.devices[0].cuda_only_mib < made.devices[0].compute_mib


def test_each_remedy_that_is_told_does_help() -> None:
    made = plan("deepseek-r1-mla-ud-iq1_m", "4xRTX4090", "64GiB")
    assert not made.fits
    assert "1 more GPU of the same kind" in made.remedies
    assert plan("deepseek-r1-mla-ud-iq1_m", "5xRTX4090", "64GiB").fits
    assert "32.0 GiB more memory for the host" in made.remedies
    assert plan("deepseek-r1-mla-ud-iq1_m", "4xRTX4090", "96GiB").fits
    assert made.swap_mib % 1024 == 0
    assert made.swap_mib > 0


def test_an_override_that_does_not_fit_is_told_as_such() -> None:
    made = plan("llama-3.3-70b-q4_k_m", "RTX4090", "64GiB", Wanted(num_gpu=81))
    assert not made.fits
    assert made.num_gpu == 81
    assert "as was asked for" in made.reasons[0]


def test_nothing_is_promised_of_what_does_not_fit() -> None:
    made = plan("llama-3.3-70b-q8_0", "RTX4090", "32GiB", ram_bandwidth="8xDDR5-4800")
    assert (made.fits, made.decode_tok_s, made.rating, made.users, made.max_context) == (False, None, None, {}, 0)


def test_speed_is_not_told_where_the_hosts_bandwidth_is_not_known() -> None:
    assert plan("llama-3.3-70b-q4_k_m", "RTX4090", "64GiB").decode_tok_s is None
    known = plan("llama-3.3-70b-q4_k_m", "RTX4090", "64GiB", ram_bandwidth="2xDDR5-5600")
    assert known.decode_tok_s is not None
    assert known.decode_tok_s.low < known.decode_tok_s.mid < known.decode_tok_s.high


def test_an_architecture_that_was_not_compared_makes_the_plan_approximate() -> None:
    shape = replace(shape_of("llama-3.3-70b-q4_k_m"), architecture="mistral9")
    made = make_plan(shape, from_names("2xRTX4090", "64GiB"), Wanted())
    assert made.is_approximate
    assert "mistral9" in made.doubts[0]
    assert not plan("llama-3.3-70b-q4_k_m", "2xRTX4090", "64GiB").is_approximate


def test_more_context_than_it_was_trained_on_is_a_doubt() -> None:
    made = plan("llama-3.3-70b-q4_k_m", "8xH100-80GB", "2TiB", Wanted(context=262144))
    assert any("131072" in doubt for doubt in made.doubts)


def test_memory_that_nobody_told_is_a_doubt() -> None:
    assert any("--ram" in doubt for doubt in plan("llama-3.3-70b-q4_k_m", "2xRTX4090", None).doubts)


def test_a_reserve_can_be_set() -> None:
    roomy = Wanted(reserve=Reserve(margin_mib=0, context_mib=0))
    tight = Wanted(reserve=Reserve(margin_mib=4096))
    contexts = [plan("llama-3.3-70b-q4_k_m", "2xRTX4090", "64GiB", wanted).max_context for wanted in (roomy, tight)]
    assert contexts[0] > contexts[1]


def test_slots_have_the_context_that_is_wanted_each() -> None:
    made = plan("llama-3.3-70b-q4_k_m", "4xRTX4090", "64GiB", Wanted(context=4096, parallel=4))
    assert made.serving == Serving(context=16384, parallel=4, unified=False)
    assert made.settings["ollama"]["parameters"]["num_ctx"] == 4096


def test_the_explanation_has_each_formula_with_its_numbers() -> None:
    told = "\n".join(plan("deepseek-r1-mla-q4_k_m", "8xH100-80GB", "2TiB").explanation)
    assert "576 elements" in told
    assert "61 layers" in told
    assert "GPU 7: layers" in told
    assert "tokens a second: 1 /" in told


def test_a_plan_is_plain_data() -> None:
    data = plan("deepseek-r1-mla-q4_k_m", "8xH100-80GB", "2TiB").as_data()
    assert data["num_gpu"] == 62
    assert data["way"] == "all layers on GPUs"
    device = data["devices"][0]
    assert (
        device["total_mib"]
        == device["reserved_mib"]
        + device["free_mib"]
        + sum(device[f"{kind}_mib"] for kind in ("weights", "kv", "compute"))
        or abs(device["free_mib"]) < device["total_mib"]
    )
    assert data["landing"]["peak_disk_bytes"] == data["landing"]["bytes"]


def test_a_quantized_cache_without_flash_attention_is_refused() -> None:
    with pytest.raises(RackllamaError, match="flash attention"):
        plan("llama-3.3-70b-q4_k_m", "2xRTX4090", "64GiB", Wanted(value_type="q8_0", flash_attention="off"))


def test_no_room_at_all_is_no_fault() -> None:
    """GPUs so small that the reserve is all of them."""
    shape = shape_of("llama-3.1-8b-q4_k_m")
    found = Search(shape, Serving(), Room((0, 0), 64 * GIB)).best()
    assert found.way is Way.ON_HOST or not found.fits


@pytest.mark.parametrize("answer", range(21))
def test_the_largest_number_is_found(answer: int) -> None:
    assert largest(lambda number: number <= answer, 20) == answer


@pytest.mark.parametrize("model", ["llama-3.3-70b-q4_k_m", "deepseek-r1-mla-ud-iq1_m"])
@pytest.mark.parametrize("gib", [(48,), (24, 24), (80, 80), (24,) * 8])
@pytest.mark.parametrize("host", [8, 64, 128, 256])
def test_nothing_fits_of_which_it_is_quickly_told_that_it_may_not(model: str, gib: tuple[int, ...], host: int) -> None:
    search = Search(shape_of(model), Serving(), Room(tuple(size * GIB for size in gib), host * GIB))
    assert search.may_fit() or not search.best().fits


@pytest.mark.parametrize("gpus", ["RTX4090", "2xRTX4090", "2xL20", "RTX3090,L20", "4xRTX4090", "H200"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_the_largest_context_fits_and_the_next_one_does_not(gpus: str, parallel: int) -> None:
    shape, hardware, wanted = shape_of("llama-3.3-70b-q4_k_m"), from_names(gpus, "64GiB"), Wanted(parallel=parallel)
    search = Search(shape, serving_of(shape, wanted), room_of(hardware, wanted.reserve))
    placement = search.best().placement
    longest = search.largest_context(placement)

    def fits(context: int) -> bool:
        return replace(search, serving=replace(search.serving, context=context)).measure(placement).fits

    step = CELLS_MULTIPLE * search.serving.streams
    assert fits(longest)
    assert longest >= shape.trained_context * parallel or not fits(longest + step)


def test_hardware_is_named_in_the_plan() -> None:
    host = Hardware("rack 4", ram_mib=65536)
    assert make_plan(shape_of("qwen3-30b-a3b-q4_k_m"), host, Wanted(), "qwen3-30b-a3b:q4_k_m").hardware == "rack 4"


@pytest.mark.parametrize("seed", range(12))
def test_a_few_layers_of_those_that_are_alike_need_as_much_as_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By CUDA's rules too, which the dry run cannot judge, with experts on the host beyond the first GPU's layers."""
    choice = random.Random(seed)  # noqa: S311 - the same placements each time
    shape = shape_of(choice.choice(["deepseek-r1-mla-q4_k_m", "qwen3-30b-a3b-q4_k_m", "llama-3.1-8b-q4_k_m"]))
    gpus = choice.choice([1, 2, 4])
    layers = choice.choice([shape.layers + 1, shape.layers // 2])
    experts = choice.choice([0, shape.layers // 2, shape.layers]) if shape.is_moe else 0
    placement = Placement(by_shares(layers, [choice.choice([1, 2, 3]) for _ in range(gpus)]), experts)
    serving = Serving(flash_attention=choice.random() < 0.5)
    devices = Devices.of_cuda(gpus, works_in_turns=layers > shape.layers and not experts)
    few = compute.compute_bytes(shape, serving, placement, devices)
    monkeypatch.setattr(compute, "ENOUGH_ALIKE", shape.layers)
    assert few == compute.compute_bytes(shape, serving, placement, devices)


def test_an_overridden_placement_counts_the_copies_that_cuda_makes() -> None:
    """What three layers of each kind told, it was nearly a GiB too little."""
    made = plan("deepseek-r1-mla-q4_k_m", "2xRTX4090", "512GiB", Wanted(num_gpu=62, experts_on_host=61))
    assert made.devices[0].compute_mib > 4900


def test_more_slots_than_an_engine_has_are_refused() -> None:
    with pytest.raises(RackllamaError, match="256"):
        plan("llama-3.1-8b-q4_k_m", "RTX4090", "64GiB", Wanted(context=512, parallel=300))


def test_experts_that_a_model_has_not_cannot_stay_anywhere() -> None:
    with pytest.raises(RackllamaError, match="this model has none"):
        plan("llama-3.1-8b-q4_k_m", "RTX4090", "64GiB", Wanted(experts_on_host=5))


def test_gpus_beyond_those_that_an_engine_can_be_told_of_are_left_alone() -> None:
    made = plan("llama-3.3-70b-q4_k_m", "17xL20", "64GiB")
    assert len(made.devices) == 15
    assert any("2 GPUs are left alone" in reason for reason in made.reasons)


def test_a_disk_without_room_is_told() -> None:
    made = plan("llama-3.1-8b-q4_k_m", "RTX4090", "64GiB", disk="1GB")
    assert any("no disk has room" in reason for reason in made.reasons)


def test_a_gpu_hardly_larger_than_what_computing_takes_is_used_all_the_same() -> None:
    """Found by trying all placements: one that fits is found."""
    shape = shape_of("llama-3.1-8b-q4_k_m")
    serving = Serving(context=32768, flash_attention=False)
    uneven = Search(shape, serving, Room((8192 * MIB, 3000 * MIB), 64 * GIB)).best()
    alone = Search(shape, serving, Room((8192 * MIB,), 64 * GIB)).best()
    assert uneven.fits
    assert uneven.placement.gpu_layers >= alone.placement.gpu_layers - 1
