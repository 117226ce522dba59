"""`rackllama plan`: from a command line to a page, JSON, an exit code or an error with its remedy."""

import json
import sys
from pathlib import Path

import pytest
from tests.planner.header_only import header

from rackllama.cli import main

from .plans import R1, SMALL


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / f"{SMALL}.gguf"
    path.write_bytes(header(SMALL))
    return path


@pytest.fixture
def r1(tmp_path: Path) -> Path:
    path = tmp_path / f"{R1}.gguf"
    path.write_bytes(header(R1))
    return path


def planned(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict:
    assert main(["plan", "--json", *map(str, arguments)]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:  # as argparse ends
        sys.exit(main(["plan", *map(str, arguments)]))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_page_is_shown(small, capsys):
    assert main(["plan", str(small), "--gpu", "RTX4090", "--ram", "64GiB"]) == 0
    assert capsys.readouterr().out.startswith(f"Fits: {SMALL} on RTX4090")


def test_json_has_what_its_documentation_promises(small, capsys):
    told = planned(capsys, small, "--gpu", "RTX4090", "--ram", "64GiB", "--network", "1Gbit/s", "--disk-write", "1GB/s")
    assert told["fits"] is True
    assert told["num_gpu"] == 33
    assert told["placement"] == {"layers": [33], "experts_on_host": 0}
    assert told["devices"][0].keys() == told["host"].keys()
    assert {"total_mib", "weights_mib", "kv_mib", "compute_mib", "reserved_mib", "layers"} <= told["host"].keys()
    assert told["settings"]["ollama"]["parameters"]["num_gpu"] == 33
    assert told["decode_tok_s"].keys() == {"low", "mid", "high"}
    assert told["landing"]["bytes"] == told["landing"]["peak_disk_bytes"]
    described = (Path(__file__).parents[3] / "docs/planning.md").read_text()
    assert [field for field in told if f"`{field}`" not in described] == []
    assert [field for field in told["host"] if f"`{field}`" not in described] == []


def test_what_does_not_fit_has_an_exit_code_of_its_own(r1, capsys):
    told = planned(capsys, r1, "--gpu", "RTX4090", "--ram", "64GiB", code=3)
    assert told["fits"] is False
    assert told["remedies"]


def test_how_it_is_served_is_as_asked(small, capsys):
    told = planned(
        capsys,
        *(small, "--gpu", "2xRTX4090", "--ram", "64GiB", "--context", "16k", "--parallel", 2),
        *("--kv", "q8_0", "--kv-values", "q4_0", "--flash-attention", "on", "--micro-batch", 256),
        *("--margin-mib", 512, "--context-mib", 300, "--host-reserve", "4GiB"),
    )
    serving = told["serving"]
    assert (serving["context"], serving["parallel"]) == (32768, 2)
    assert (serving["key_type"], serving["value_type"], serving["micro_batch"]) == ("q8_0", "q4_0", 256)
    assert (told["devices"][0]["reserved_mib"], told["host"]["reserved_mib"]) == (812, 4096)


def test_placement_may_be_given(r1, capsys):
    told = planned(capsys, r1, "--gpu", "2xRTX4090", "--ram", "384GiB", "--num-gpu", 5)
    assert told["num_gpu"] == 5
    told = planned(capsys, r1, "--gpu", "4xRTX4090", "--ram", "384GiB", "--experts-on-host", 50)
    assert told["placement"]["experts_on_host"] == 50


def test_an_instance_type_is_planned_for_with_its_price(small, capsys):
    assert planned(capsys, small, "--instance", "p5.4xlarge")["cost_per_hour"] > 0


def test_a_description_is_planned_for(small, tmp_path, capsys):
    described = {"name": "gpu1", "gpus": [{"name": "L20", "memory_mib": 46068}] * 2, "ram_mib": 262144}
    (tmp_path / "gpu1.json").write_text(json.dumps(described))
    told = planned(capsys, small, "--hardware", tmp_path / "gpu1.json")
    assert told["hardware"] == "gpu1"
    assert len(told["devices"]) == 2


def test_what_a_description_lacks_may_be_told_beside_it(small, tmp_path, capsys):
    (tmp_path / "gpu1.json").write_text(json.dumps({"gpus": [{"name": "L20", "memory_mib": 46068}]}))
    beside = (
        "--ram",
        "128GiB",
        "--network",
        "10Gbit/s",
        "--disk",
        "1TB",
        "--disk-write",
        "1GB/s",
        "--disk-read",
        "2GB/s",
    )
    told = planned(capsys, small, "--hardware", tmp_path / "gpu1.json", *beside)
    assert told["host"]["total_mib"] == 131072
    assert told["landing"]["seconds"] > 0
    assert told["load_seconds"] > 0


def test_a_host_is_asked(small, capsys, monkeypatch):
    described = {"name": "gpu1", "gpus": [{"name": "L20", "memory_mib": 46068}], "ram_mib": 262144}
    monkeypatch.setattr("rackllama.planning.remote_host.describe_host", {"root@gpu1": described}.__getitem__)
    assert planned(capsys, small, "--host", "root@gpu1")["hardware"] == "root@gpu1"


def test_the_cheapest_instance_type_is_chosen(small, capsys):
    told = planned(capsys, small, "--budget", "20/h")
    (one,) = [one for one in told["considered"] if not one["refusal"]]
    assert one["hardware"] == told["hardware"]
    assert one["cost_per_hour"] <= 20


def test_users_each_get_a_slot(small, capsys):
    told = planned(capsys, small, "--users", 12)
    assert told["serving"]["parallel"] == 12
    assert told["users"]["acceptable"] >= 12


def test_what_was_considered_is_shown(small, capsys):
    assert main(["plan", str(small), "--budget", "20/h"]) == 0
    told = capsys.readouterr().out
    assert "Considered, the cheapest first" in told
    assert "costs more than the budget" in told


def test_nothing_for_the_budget_is_no_fit(r1, capsys):
    told = planned(capsys, r1, "--budget", "0.5", code=3)
    assert told["fits"] is False
    assert {one["refusal"] for one in told["considered"]} >= {"costs more than the budget"}


def test_a_context_beyond_the_trained_one_is_a_doubt(small, capsys):
    told = planned(capsys, small, "--gpu", "H200", "--ram", "512GiB", "--context", "256k")
    assert told["is_approximate"] is True
    assert "trained on 131072 tokens" in told["doubts"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nobody said what to plan for"),
        (["--gpu", "8xVoodoo2"], "no GPU 'Voodoo2'"),
        (["--gpu", "0xL20"], "counts 0 GPUs"),
        (["--gpu", "L20", "--ram", "0GiB"], "too little"),
        (["--gpu", "L20", "--ram", "much"], "'much' is no amount"),
        (["--gpu", "L20", "--ram", "64"], "'64' is no amount"),
        (["--gpu", "L20", "--network", "fast"], "'fast' is no rate"),
        (["--gpu", "L20", "--users", "3"], "--budget and --users choose"),
        (["--gpu", "L20", "--instance", "p5.4xlarge"], "not allowed with argument"),
        (["--gpu", "L20", "--context", "-5"], "'-5' is no number of tokens"),
        (["--gpu", "L20", "--context", "0"], "'0' is no number of tokens"),
        (["--gpu", "L20", "--context", "long"], "'long' is no number of tokens"),
        (["--gpu", "L20", "--parallel", "0"], "'0' is no number from 1 on"),
        (["--gpu", "L20", "--kv", "q9_9"], "invalid choice: 'q9_9'"),
        (["--gpu", "L20", "--kv", "q8_0", "--flash-attention", "off"], "need flash attention"),
        (["--gpu", "L20", "--host-reserve", "4096"], "'4096' is no amount of memory"),
        (["--budget", "cheap"], "'cheap' is no budget"),
        (["--instance", "p5.tiny"], "no instance type 'p5.tiny'"),
        (["--hardware", "/nowhere.json"], "No such file"),
    ],
)
def test_nonsense_is_refused_with_what_to_give_instead(small, capsys, arguments, message):
    told = refused(capsys, small, *arguments)
    assert message in told
    assert "remedy: " in told or "usage: " in told


@pytest.mark.parametrize("text", ["no json", "[]", "3", "{}", '{"gpus": [3]}', '{"gpus": {"a": 1}}'])
def test_what_describes_no_hardware_is_refused(small, tmp_path, capsys, text):
    (tmp_path / "odd.json").write_text(text)
    assert "odd.json is no hardware description" in refused(capsys, small, "--hardware", tmp_path / "odd.json")


def test_a_model_that_is_not_there_is_refused(tmp_path, capsys):
    assert "gone.gguf: No such file" in refused(capsys, tmp_path / "gone.gguf", "--gpu", "L20", "--ram", "64GiB")


def test_a_header_that_is_cut_off_is_refused(small, capsys):
    small.write_bytes(small.read_bytes()[:3000])
    assert "the file ends within" in refused(capsys, small, "--gpu", "L20", "--ram", "64GiB")
