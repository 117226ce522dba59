"""The page for people: what it says, and that it stays within its width."""

import io
import re
from dataclasses import replace

import pytest

from rackllama.planning.page import Look, bar, choice, page, shares, show
from rackllama.planning.plan import Wanted

from .plans import R1, plan


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(*arguments, columns: str = "", **options) -> str:
    stream = io.StringIO()
    show(page(*arguments, **options), stream, {"COLUMNS": columns})
    return stream.getvalue()


def test_the_verdict_comes_first_and_in_one_line():
    first = shown(plan()).splitlines()[0]
    assert re.fullmatch(r"Fits: llama-3\.1-8b-q4_k_m on RTX4090, \d+\.\d GiB to spare on the GPU", first)


def test_what_does_not_fit_says_by_how_much_and_what_would():
    told = shown(plan(R1, "RTX4090", "64GiB"), columns="120")
    assert re.match(r"Does not fit: deepseek-r1-mla-ud-iq1_m on RTX4090, \d+\.\d GiB have no room\n", told)
    assert "To make it fit" in told
    assert "llama-server" not in told


def test_each_device_has_a_row():
    told = shown(plan(R1, "2xRTX4090,1xL40S", "384GiB")).splitlines()
    rows = [found[1] for line in told if (found := re.match(r"(GPU \d \w+|host) .* \d+$", line))]
    assert rows == [
        "GPU 0 RTX4090",
        "GPU 1 RTX4090",
        "GPU 2 L40S",
        "host",
    ]


def test_amounts_stand_under_their_titles():
    planned = plan()
    title, gpu, _ = (line for line in shown(planned).splitlines() if re.match(r"in GiB|GPU|host", line))
    device = planned.devices[0]
    assert title.split() == ["in", "GiB", "weights", "KV", "compute", "reserve", "free", "of", "layers"]
    told = (device.weights_mib, device.kv_mib, device.compute_mib, device.reserved_mib, device.free_mib)
    assert gpu.split()[-7:-2] == [f"{mib / 1024:.1f}" for mib in told]
    assert gpu.split()[-1] == "33"


@pytest.mark.parametrize(("columns", "width"), [("", 80), ("40", 80), ("100", 100), ("300", 120), ("wide", 80)])
@pytest.mark.parametrize("gpus", ["RTX4090", "2xRTX4090,1xL40S", "8xH100-80GB"])
def test_lines_stay_within_the_width(columns, width, gpus):
    lines = shown(plan(R1, gpus, "384GiB"), columns=columns, is_explained=True).splitlines()
    assert [line for line in lines if len(line) > width or line != line.rstrip()] == []


def test_settings_can_be_pasted():
    told = shown(plan(R1, "2xRTX4090", "384GiB"))
    command = re.search(r"^CUDA_DEVICE_ORDER=PCI_BUS_ID llama-server (?:.*\\\n)*.*", told, re.MULTILINE)[0]
    assert "--n-cpu-moe" in command
    assert "--tensor-split" in command
    assert re.search(r"^PARAMETER num_gpu 62$", told, re.MULTILINE)
    assert re.search(r"^OLLAMA_FLASH_ATTENTION=1$", told, re.MULTILINE)


def test_speed_landing_and_reasons_are_told():
    told = shown(plan())
    assert re.search(r"^Speed +\d+ to \d+ tokens a second, likely \d+: comfortable$", told, re.MULTILINE)
    assert re.search(r"users at once: \d+ at 6 tok/s each, \d+ at 14 tok/s each", told)
    assert re.search(r"^Landing +4\.9 GB \(4\.6 GiB\), 4\.9 GB of disk at the peak; in \d+ s$", told, re.MULTILINE)
    assert re.search(r"^Why +all 32 layers and the output are on the GPU$", told, re.MULTILINE)


def test_doubts_are_told_and_marked_in_the_verdict():
    planned = plan(wanted=Wanted(context=262144, key_type="q4_0", value_type="q4_0"))
    told = shown(planned, columns="120")
    assert "(approximate: see the doubts below)" in told.splitlines()[0]
    assert "Doubts" in told


def test_formulas_are_shown_on_request():
    assert "How it was reckoned" not in shown(plan())
    assert "elements of f16" in shown(plan(), is_explained=True)


def test_what_is_no_terminal_gets_no_colours():
    assert "\x1b" not in shown(plan())


def test_no_color_is_respected_on_a_terminal():
    for environment, has_colours in (({"NO_COLOR": "1"}, False), ({"COLORTERM": "truecolor"}, True)):
        stream = Terminal()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TERM", "xterm-256color")
            patch.delenv("NO_COLOR", raising=False)
            show(page(plan()), stream, environment)
        assert ("\x1b" in stream.getvalue()) is has_colours


def test_a_bar_shows_parts_by_their_share():
    device = replace(
        plan().devices[0], total_mib=1000, weights_mib=500, kv_mib=200, compute_mib=100, reserved_mib=100, free_mib=100
    )
    assert bar(device, Look(10)).plain == "█████▓▓▒░·"
    assert bar(device, Look(10, ascii_only=True)).plain == "#####kkc-."


def test_what_has_no_room_is_told_by_exclamation_marks():
    device = replace(
        plan().devices[0], total_mib=500, weights_mib=900, kv_mib=0, compute_mib=50, reserved_mib=50, free_mib=-500
    )
    assert bar(device, Look(10)).plain == "█████!!!!!"


def test_a_host_of_unknown_memory_has_no_bar():
    assert bar(replace(plan().host, total_mib=None), Look(10)).plain == ""
    assert re.search(r"^host .* \?  +\? +0$", shown(plan(ram=None)), re.MULTILINE)


def test_parts_too_small_to_see_are_left_out():
    assert shares([90, 1000, 5, 0], 20) == [2, 18, 0, 0]
    assert shares([1, 1, 1], 10) == [4, 3, 3]


def test_very_many_devices_share_rows():
    planned = plan()
    many = replace(planned, devices=(planned.devices[0],) * 40)
    assert "GPU 0-39" in shown(many)


def test_nothing_that_fits_is_told_with_what_was_considered():
    stream = io.StringIO()
    show(choice("r1", None, ()), stream, {})
    assert stream.getvalue().startswith("Nothing fits: no instance type of the catalogue does for r1.")


def test_a_name_gives_no_orders_to_the_terminal():
    told = shown(replace(plan(), model="evil\x1b[2J", architecture="lla\x1bma"))
    assert "\x1b" not in told
    assert told.startswith("Fits: evil\N{REPLACEMENT CHARACTER}[2J on RTX4090")


def test_what_cannot_write_unicode_gets_plain_letters():
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as stream:
        show(page(replace(plan(), model="mödel")), stream, {})
        stream.flush()
        told = raw.getvalue().decode("ascii")
    assert told.startswith("Fits: m?del on RTX4090")
    assert "# weights" in told
