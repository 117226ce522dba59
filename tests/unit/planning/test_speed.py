"""How fast a model answers: against what others measured, and in what must hold of any answer."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.bench.speed import (
    ADDED,
    GIVEN,
    HELD_OUT,
    fit,
    leave_one_out,
    median_error,
    parameters,
    points_of,
    shape,
    table,
)

from rackllama.host.errors import RackllamaError
from rackllama.planning import speed
from rackllama.planning.hardware import Gpu, from_names
from rackllama.planning.serving import Placement, Serving, by_shares
from rackllama.planning.speed import Bandwidths, StreamDevice

R1, R1_OF_JANUARY = "deepseek-r1-mla-q4_k_m", "deepseek-r1-mha-q4_k_m"
LLAMA_70B, LLAMA_8B, QWEN_30B = "llama-3.3-70b-q4_k_m", "llama-3.1-8b-q4_k_m", "qwen3-30b-a3b-q4_k_m"
DEPTH = 1000


def on_gpus(model, gpus=1, bandwidth=1008, kind="cuda", depth=DEPTH, **serving):
    """The stages of a model that lies on GPUs as a whole."""
    placement = Placement(by_shares(shape(model).layers + 1, [1] * gpus))
    return speed.stages(shape(model), placement, Serving(**serving), depth, Bandwidths((bandwidth,) * gpus, kind))


def on_host(model, bandwidth=307.2, depth=DEPTH):
    return speed.stages(shape(model), Placement(()), Serving(), depth, Bandwidths(ram=bandwidth))


def with_experts_on_host(model, bandwidth=307.2, gpu_bandwidth=1008):
    placement = Placement((shape(model).layers + 1,), shape(model).layers)
    return speed.stages(shape(model), placement, Serving(), DEPTH, Bandwidths((gpu_bandwidth,), ram=bandwidth))


def refusal(function, *given, **named):
    with pytest.raises(RackllamaError) as caught:
        function(*given, **named)
    return caught.value


# What was measured


def test_the_model_holds_for_what_it_was_fitted_on():
    assert median_error(point.error(speed.fitted()) for point in points_of(GIVEN)) <= 0.10
    assert median_error(point.error(speed.fitted()) for point in points_of(GIVEN, ADDED)) <= 0.10


def test_the_model_holds_for_a_point_that_it_was_not_fitted_on():
    errors = leave_one_out(points_of(GIVEN, ADDED))
    assert median_error(errors.values()) <= 0.20
    assert median_error(errors[point.id] for point in points_of(GIVEN)) <= 0.20
    assert median_error(leave_one_out(points_of(GIVEN)).values()) <= 0.20


def test_the_band_contains_four_of_five_points_that_were_held_out():
    held_out = points_of(HELD_OUT)
    assert sum(point.is_within(speed.fitted()) for point in held_out) >= 0.8 * len(held_out)


def test_fitting_again_gives_the_parameters_that_stand():
    stand = speed.fitted().seconds
    found = parameters(fit(points_of(GIVEN, ADDED))).seconds
    assert found == {name: pytest.approx(value, rel=0.01) for name, value in stand.items()}


def test_the_fit_ends_at_the_same_from_elsewhere():
    known = points_of(GIVEN, ADDED)
    once = fit(known)
    assert fit(known, {name: value * 1.5 for name, value in once.items()}) == pytest.approx(once, rel=0.02)


def test_every_point_names_its_source():
    assert all(point.source for point in points_of(GIVEN, ADDED, HELD_OUT))


def test_the_page_has_the_tables_that_the_model_gives():
    page = Path(__file__).parents[3].joinpath("docs", "planner-speed.md").read_text("utf-8")
    for line in table(points_of(GIVEN, ADDED, HELD_OUT), {}):
        assert line.removesuffix("|").rstrip() in page, "run: python -m tests.bench.speed"


# What is read


def test_of_experts_only_those_in_use_are_read():
    [gpu] = on_gpus(R1)
    model = shape(R1)
    assert gpu.expert_bytes == pytest.approx(sum(layer.experts for layer in model.layer_weights) * 8 / 256)
    # All else is read as a whole but the embedding, of which a token has one row.
    others = sum(layer.others for layer in model.layer_weights) + model.output_weights
    assert gpu.weights_bytes == others + model.input_weights // model.vocabulary
    assert (gpu.layers, gpu.moe_layers, gpu.latent_layers) == (61, 58, 61)


def test_a_dense_model_is_read_as_a_whole():
    [gpu] = on_gpus(LLAMA_70B)
    assert gpu.weights_bytes / shape(LLAMA_70B).weights == pytest.approx(0.985, abs=0.002)
    assert (gpu.expert_bytes, gpu.moe_layers, gpu.latent_layers) == (0, 0, 0)


@pytest.mark.parametrize(
    ("model", "serving", "of_a_token"),
    [
        (LLAMA_70B, {}, 80 * 2 * 8 * 128 * 2),
        (LLAMA_70B, {"key_type": "q8_0", "value_type": "q8_0"}, 80 * 2 * 8 * 128 * 34 // 32),
        (R1, {}, 61 * 576 * 2),
        (R1_OF_JANUARY, {}, 61 * 128 * (192 + 128) * 2),
    ],
)
def test_the_cache_is_read_up_to_the_depth(model, serving, of_a_token):
    [gpu] = on_gpus(model, depth=DEPTH, **serving)
    assert gpu.kv_bytes == DEPTH * of_a_token


def test_a_layer_with_a_window_reads_no_more_of_the_cache_than_that():
    model = replace(shape(LLAMA_8B), window=512, windowed=(True,) * 16 + (False,) * 16)
    [gpu] = speed.stages(model, Placement((33,)), Serving(), 4096, Bandwidths((1008,)))
    assert gpu.kv_bytes == 16 * (512 + 4096) * 2 * 8 * 128 * 2


def test_layers_are_read_where_they_lie():
    [host, first, second] = speed.stages(
        shape(R1), Placement((14, 14)), Serving(), DEPTH, Bandwidths((1008, 936), ram=179.2)
    )
    assert [(device.name, device.kind, device.bandwidth_gbs) for device in (host, first, second)] == [
        ("host", "cpu", 179.2),
        ("GPU 0", "cuda", 1008),
        ("GPU 1", "cuda", 936),
    ]
    # The output counts as a layer, and is the last of the last GPU.
    assert (host.layers, first.layers, second.layers) == (34, 14, 13)
    [whole] = on_gpus(R1)
    assert host.bytes + first.bytes + second.bytes == pytest.approx(whole.bytes)


def test_experts_on_the_host_are_read_there_and_each_layer_goes_for_them():
    [host, gpu] = with_experts_on_host(R1)
    assert (host.weights_bytes, host.layers, host.moe_layers, host.visits) == (0, 0, 58, 58)
    assert (gpu.expert_bytes, gpu.moe_layers, gpu.layers) == (0, 0, 61)


# What must hold of any answer


@pytest.mark.parametrize("model", [R1, LLAMA_8B, QWEN_30B])
def test_more_bandwidth_is_never_slower(model):
    rates = [speed.decode(on_gpus(model, bandwidth=bandwidth)).mid for bandwidth in (200, 500, 1000, 1800)]
    assert rates == sorted(rates)
    hosts = [speed.decode(on_host(model, bandwidth)).mid for bandwidth in (50, 100, 300, 600)]
    assert hosts == sorted(hosts)


@pytest.mark.parametrize("flash_attention", [True, False])
def test_more_depth_is_never_faster(flash_attention):
    rates = [
        speed.decode(on_gpus(LLAMA_8B, depth=depth, flash_attention=flash_attention)).mid
        for depth in (0, 512, 8192, 131072)
    ]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 2


@pytest.mark.parametrize("vintage", speed.VINTAGES)
@pytest.mark.parametrize("model", [R1_OF_JANUARY, LLAMA_70B])
def test_more_gpus_of_the_same_kind_are_never_faster_for_one_stream(model, vintage):
    rates = [speed.decode(on_gpus(model, gpus), vintage).mid for gpus in (1, 2, 4, 8, 16)]
    assert all(more < fewer for fewer, more in pairwise(rates))
    assert rates[-1] > 0.8 * rates[0]


def test_the_band_is_narrow_enough_and_contains_the_likeliest():
    for point in points_of(GIVEN, ADDED, HELD_OUT):
        band = point.predicted(speed.fitted())
        assert band.low < band.mid < band.high <= 2 * band.low


def test_the_terms_are_what_the_time_of_a_token_is_made_of():
    band = speed.decode(with_experts_on_host(R1), "kt")
    assert sum(term.seconds for term in band.terms) == pytest.approx(1 / band.mid)
    assert [term.name for term in band.terms] == [
        "host: weights",
        "GPU 0: weights",
        "GPU 0: KV cache",
        "GPU 0: layers",
        "GPU 0: latent attention",
        "from device to device",
    ]
    part = speed.fitted().seconds["read.cpu"]
    assert band.terms[0].formula == f"12.31 GB at 307 GB/s, of which {1 / part:.0%} is achieved"


def test_an_old_engine_is_slower_where_experts_are():
    devices = on_gpus(R1_OF_JANUARY, 8, flash_attention=False)
    assert speed.decode(devices, "old").mid < 0.8 * speed.decode(devices, "new").mid
    assert speed.decode(on_gpus(LLAMA_8B), "old") == speed.decode(on_gpus(LLAMA_8B), "new")


# Hardware


@pytest.mark.parametrize(
    ("gpu", "kind"),
    [
        (Gpu("H100", 81559, 3350, "9.0"), "cuda-hbm"),
        (Gpu("RTX5090", 32607, 1792, "12.0"), "cuda"),
        (Gpu("L20", 46068, 864, "8.9"), "cuda"),
        (Gpu("something new", 200000, 8000), "cuda-hbm"),
        (Gpu("M3-Ultra", 524288, 819, kind="metal"), "metal"),
    ],
)
def test_the_kind_of_a_gpus_memory(gpu, kind):
    assert speed.memory_kind(gpu) == kind


def test_the_bandwidths_of_a_host():
    host = from_names("2xRTX4090", "512GiB", ram_bandwidth="16xDDR5-4800", numa_nodes=2)
    assert speed.bandwidths(host) == Bandwidths((1008, 1008), ("cuda", "cuda"), 307.2)
    # Only ktransformers holds the weights once on each node.
    assert speed.bandwidths(host, "kt").ram == 614.4
    assert speed.bandwidths(from_names("L20")).ram is None


@pytest.mark.parametrize(
    ("bandwidth", "words"), [(None, "not known"), (0, "no rate"), (-1, "no rate"), (float("nan"), "no rate")]
)
def test_a_host_that_computes_needs_its_bandwidth(bandwidth, words):
    error = refusal(lambda: speed.decode(on_host(LLAMA_8B, bandwidth)))
    assert words in str(error)
    assert error.remedy


def test_what_cannot_be_placed_is_refused():
    one_too_few = Bandwidths((1008,))
    assert "on 2 GPUs" in str(refusal(speed.stages, shape(LLAMA_8B), Placement((17, 16)), Serving(), 0, one_too_few))
    assert "the output" in str(refusal(speed.bytes_per_token, shape(LLAMA_8B), Placement((34,)), Serving(), 0))
    assert "-1" in str(refusal(speed.bytes_per_token, shape(LLAMA_8B), Placement((33,)), Serving(), -1))
    assert refusal(speed.decode, []).remedy


# Users


def test_users_share_the_weights_of_a_dense_model():
    devices = on_gpus(LLAMA_8B)
    comfortable, acceptable = (speed.users_served(devices, wanted) for wanted in (14, 6))
    assert 1 < comfortable.count < acceptable.count
    assert comfortable.each_tok_s >= 14
    assert acceptable.each_tok_s >= 6
    # Together they get more than one alone, and never more than if reading were all.
    assert speed.decode(devices).low < comfortable.count * comfortable.each_tok_s


def test_users_share_few_experts():
    step = {streams: speed.terms(on_gpus(QWEN_30B), streams=streams)[0].seconds for streams in (1, 2, 64)}
    assert step[2] > 1.4 * step[1]
    # 64 streams that choose 8 of 128 by lot read nearly all, 16 times what one does.
    assert step[64] < 25 * step[1]


def test_users_deep_in_their_context_are_fewer():
    counts = [speed.users_served(on_gpus(LLAMA_8B, depth=depth)).count for depth in (0, 4096, 32768)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


def test_users_are_no_more_than_the_cache_has_room_for():
    assert speed.users_served(on_gpus(LLAMA_8B), most=4).count == 4


def test_a_host_too_slow_for_one_serves_none():
    served = speed.users_served(on_host(LLAMA_70B, 80))
    assert served.count == 0
    assert served.each_tok_s == pytest.approx(speed.decode(on_host(LLAMA_70B, 80)).low)


@pytest.mark.parametrize(
    ("tok_s", "words"),
    [(2, "slow"), (5.99, "slow"), (6, "acceptable"), (13.9, "acceptable"), (14, "comfortable"), (80, "comfortable")],
)
def test_a_rate_is_rated_as_users_feel_it(tok_s, words):
    assert speed.rating(tok_s) == words


# Loading and landing


def test_a_load_takes_what_the_disk_takes():
    assert speed.load_seconds(404 * 10**9, 6400) == pytest.approx(63.1, abs=0.1)
    assert speed.load_seconds(404 * 10**9, None) is None
    assert "no rate" in str(refusal(speed.load_seconds, 1, 0))


@pytest.mark.parametrize(
    ("network", "write", "cores", "seconds"),
    [
        (1250, 3000, None, 323),  # the network is slowest
        (3125, 1000, None, 404),  # the disk
        (12500, 6000, None, 224),  # the one chain of digests
        (12500, 6000, 2, 898),  # two cores
        (None, 1000, None, None),
        (1250, None, None, None),
    ],
)
def test_a_landing_takes_what_its_slowest_part_takes(network, write, cores, seconds):
    found = speed.landing_seconds(404 * 10**9, network, write, cores)
    assert found == (None if seconds is None else pytest.approx(seconds, rel=0.01))


def test_a_stage_can_be_told_by_hand():
    device = StreamDevice("metal", 800, 40 * 10**9, 10**8, 80, name="GPU 0")
    assert 5 < speed.decode([device]).mid < 20
