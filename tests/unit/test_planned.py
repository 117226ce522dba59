"""A plan beside what the engine tells of itself: the lines of llama-server in Ollama's journal, and `/api/ps`."""

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.models import plan_files, planned
from rackllama.host.models.planned import Loading, loading_of, memory_checks, plan_checks, with_advice
from rackllama.host.report import Check

WEIGHTS = "/var/lib/ollama/models/blobs/sha256-d0bd"
START = (
    'time=2026-11-22T19:13:42.935Z level=INFO source=llama_server.go:433 msg="starting llama-server" '
    'cmd="/opt/ollama/0.33.0/lib/ollama/llama-server --model {} --port 45449 --host 127.0.0.1 -c 8192 -np 2"'
)
# As Ollama 0.33 has it in its journal, of Gemma 3 270M on a host without GPUs.
ON_HOST = """\
srv    load_model: loading model
load_tensors: loading model tensors, this can take a while... (load_mode = none)
load_tensors: offloading output layer to GPU
load_tensors: offloaded 19/19 layers to GPU
load_tensors:          CPU model buffer size =   222.51 MiB
load_tensors:   CPU_REPACK model buffer size =    12.66 MiB
llama_context:        CPU  output buffer size =     1.00 MiB
llama_kv_cache:        CPU KV buffer size =    12.00 MiB
llama_kv_cache: size =   12.00 MiB (  4096 cells,   3 layers,  1/1 seqs), K (f16):    6.00 MiB, V (f16):    6.00 MiB
llama_kv_cache:        CPU KV buffer size =    15.00 MiB
sched_reserve:        CPU compute buffer size =    22.77 MiB
[GIN] 2026/11/22 - 19:13:44 | 200 |  134.243053ms |       127.0.0.1 | POST     "/api/chat"
""".splitlines()
# As llama.cpp tells it of two GPUs and a file that is mapped; the first part it only tries.
ON_GPUS = """\
load_tensors: loading model tensors, this can take a while... (mmap = true)
load_tensors:        CUDA0 model buffer size = 99999.00 MiB
load_tensors: loading model tensors, this can take a while... (mmap = true)
load_tensors: offloaded 20/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =  4403.49 MiB
load_tensors:        CUDA0 model buffer size =  1400.00 MiB
load_tensors:        CUDA1 model buffer size =  1300.00 MiB
llama_kv_cache:        CPU KV buffer size =   100.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =   300.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =   280.00 MiB
sched_reserve:      CUDA0 compute buffer size =   250.00 MiB
sched_reserve:      CUDA1 compute buffer size =   240.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB
""".splitlines()


def device(weights, cache, compute, cuda_only=0):
    return {"weights_mib": weights, "kv_mib": cache, "compute_mib": compute, "cuda_only_mib": cuda_only}


PLAN = {
    "fits": True,
    "num_gpu": 0,
    "devices": [],
    "host": device(236, 27, 23),
    "serving": {"context": 8192, "parallel": 2},
    "max_context": 32768,
    "remedies": [],
}


class StandIn:
    """An Ollama that has these models in memory."""

    def __init__(self, *loaded):
        self._loaded = loaded

    def loaded(self):
        if not self._loaded:
            raise RackllamaError("Ollama does not answer", "start it")
        return list(self._loaded)


def loading(lines):
    found = loading_of([START.format(WEIGHTS), *lines], WEIGHTS)
    assert found
    return found


def test_all_that_a_model_holds_is_counted():
    found = loading(ON_HOST)
    assert found.host == pytest.approx(222.51 + 12.66 + 1 + 12 + 15 + 22.77)
    assert not found.is_mapped


def test_only_the_last_loading_of_that_model_counts():
    other = [START.format("/blobs/sha256-other"), *ON_GPUS]
    lines = [START.format(WEIGHTS), *ON_GPUS, *other, START.format(WEIGHTS), *ON_HOST, *other]
    found = loading_of(lines, WEIGHTS)
    assert found == loading(ON_HOST)


@pytest.mark.parametrize("lines", [[], ON_HOST, [START.format("/other"), *ON_HOST], [START.format(WEIGHTS)]])
def test_what_the_journal_has_not_is_not_made_up(lines):
    assert loading_of(lines, WEIGHTS) is None


def test_gpus_are_told_apart_and_pages_of_the_file_are_no_memory():
    found = loading(ON_GPUS)
    assert (found.on(0), found.on(1), found.on(2)) == (1950.0, 1820.0, 0.0)
    assert (found.host, found.is_mapped, found.gpu_layers) == (120.0, True, 20)


def test_the_plan_is_held_beside_what_is_there():
    (check,) = memory_checks("gemma", PLAN, loading(ON_HOST))
    assert (check.id, check.ok) == ("plan.memory gemma", True)
    assert (check.wanted, check.found) == ("286 MiB within 16", "286 MiB, 286 planned")


def test_each_gpu_is_compared():
    plan = {
        **PLAN,
        "num_gpu": 20,
        "devices": [device(1400, 300, 250), device(1000, 280, 240, 40)],
        "host": device(4300, 100, 20),
    }
    checks = {check.id: check for check in memory_checks("m", plan, loading(ON_GPUS))}
    assert {identity: check.ok for identity, check in checks.items()} == {
        "plan.layers m": True,
        "plan.memory m GPU 0": True,
        "plan.memory m GPU 1": False,
        "plan.memory m": True,
    }
    assert checks["plan.memory m GPU 1"].wanted == "1520 MiB within 70"
    assert checks["plan.memory m GPU 1"].remedy


def test_a_model_that_ollama_put_elsewhere_is_told():
    plan = {**PLAN, "num_gpu": 33, "devices": [device(2000, 500, 250)]}
    checks = list(memory_checks("m", plan, Loading()))
    assert [check.ok for check in checks] == [False, False, False]


def test_a_loaded_model_has_the_context_that_was_planned(monkeypatch):
    monkeypatch.setattr(planned, "_journal", lambda: iter([START.format(WEIGHTS), *ON_HOST]))
    right, wrong = ({"name": "gemma", "context_length": length} for length in (4096, 2048))
    assert [check.ok for check in plan_checks("gemma", PLAN, StandIn(right), WEIGHTS)] == [True, True]
    assert [check.ok for check in plan_checks("gemma", PLAN, StandIn(wrong), WEIGHTS)] == [False, True]


def test_another_model_with_the_same_weights_is_not_compared():
    """As is one that somebody asked for another context."""
    lines = [START.format(WEIGHTS), *ON_HOST, START.format(WEIGHTS).replace("-c 8192", "-c 65536"), *ON_GPUS]
    assert loading_of(lines, WEIGHTS, 8192) == loading(ON_HOST)
    assert loading_of(lines[-len(ON_GPUS) - 1 :], WEIGHTS, 8192) is None


def test_weights_that_are_made_anew_from_pages_of_the_file_are_no_part_of_the_comparison():
    mapped = [line.replace("   CPU model", "CPU_Mapped model") for line in ON_HOST]
    (check,) = memory_checks("gemma", PLAN, loading(mapped))
    assert check.ok, check


def test_a_plan_of_another_version_is_not_compared():
    (check,) = plan_checks("gemma", {"fits": True}, StandIn(), WEIGHTS)
    assert (check.ok, check.found) == (True, "not told: the plan is of another version")


def test_a_journal_that_has_forgotten_is_no_fault(monkeypatch):
    monkeypatch.setattr(planned, "_journal", lambda: iter([]))
    checks = plan_checks("gemma", PLAN, StandIn({"name": "gemma", "context_length": 4096}), WEIGHTS)
    assert [(check.ok, check.found) for check in checks][1] == (
        True,
        "not told: the journal no longer has its loading",
    )


def test_an_engine_that_does_not_answer_cannot_be_compared():
    (check,) = plan_checks("gemma", PLAN, StandIn(), WEIGHTS)
    assert not check.ok


def test_a_model_that_was_unloaded_at_once_is_still_told_of_by_the_journal(monkeypatch):
    monkeypatch.setattr(planned, "_journal", lambda: iter([START.format(WEIGHTS), *ON_HOST]))
    checks = plan_checks("gemma", PLAN, StandIn({"name": "other", "context_length": 4096}), WEIGHTS)
    assert [check.ok for check in checks] == [True, True]
    assert "no longer loaded" in checks[0].found


def test_what_was_not_to_fit_is_not_compared():
    (check,) = plan_checks("gemma", {**PLAN, "fits": False}, StandIn(), WEIGHTS)
    assert check.ok
    assert "not expected to fit" in check.found


def test_plans_are_written_where_they_differ_and_go_with_their_model(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_files, "PLANS", tmp_path)
    assert plan_files.plan_of("gemma") is None
    files = plan_files.changed({"gemma": PLAN, "other": None})
    assert [path.name for path in files] == ["gemma.json"]
    plan_files.write(files)
    assert plan_files.plan_of("gemma") == PLAN
    assert plan_files.changed({"gemma": PLAN}) == {}
    plan_files.write(plan_files.changed({"gemma": None}))
    assert list(tmp_path.iterdir()) == []
    plan_files.write(files)
    plan_files.remove("gemma")
    plan_files.remove("gemma")
    assert plan_files.plan_of("gemma") is None


def test_an_engine_without_room_is_told_what_the_plan_has_room_for():
    complaint = "llama-server terminated: unable to allocate CUDA0 buffer"
    broken, fine = Check("m answers", False, "an answer", complaint, "see its journal"), Check("m stops", True, "", "")
    on_gpus = {**PLAN, "num_gpu": 20, "max_context": 4096, "devices": [device(1, 1, 1)]}
    advised = with_advice([broken, fine], on_gpus)
    assert advised[1] == fine
    assert "room for num_gpu 20 and a context of 4096" in advised[0].remedy
    assert "rackllama_plan_reserve" in advised[0].remedy
    assert "num_gpu" not in with_advice([broken], {**on_gpus, "devices": []})[0].remedy
    assert with_advice([broken], {**on_gpus, "fits": False, "remedies": ["a", "b"]})[0].remedy == "a; or b"
    assert with_advice([broken], None) == [broken]
    assert with_advice([Check("m answers", False, "", "refused", "x")], on_gpus)[0].remedy == "x"
