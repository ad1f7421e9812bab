"""Pictures of plans: what is drawn is what the plan says, to the pixel."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest

from profiles.model import ModelProfile
from solver import compare, plan
from solver.plans import Plan
from solver.report.picture import LEFT, PLOT, measured_picture, plan_picture
from solver.report.svg import STYLE
from tests.api.world import profile

SVG = "{http://www.w3.org/2000/svg}"
BOX = re.compile(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-\3z")
ROUNDED = 0.02
"""Pixels: coordinates have two decimals."""


def made(layers: int = 3, **options: object) -> Plan:
    small = ModelProfile.model_validate(profile(layers=layers))
    given = {"gpus": 2, "context_tokens": 4096, "time_limit_s": 2.0, **options}
    return plan(small, **given)  # type: ignore[arg-type]


def words(picture: str) -> str:
    return " ".join(e.text or "" for e in ElementTree.fromstring(picture).iter(f"{SVG}text"))


def boxes(picture: str, kind: str) -> Iterator[tuple[float, float, float]]:
    """(x, y, width) of every box of a kind."""
    for path in ElementTree.fromstring(picture).iter(f"{SVG}path"):
        if path.get("class") == kind:
            for x, y, width, _ in BOX.findall(path.get("d") or ""):
                yield float(x), float(y), float(width)


def ends(picture: str, *kinds: str) -> list[float]:
    """Where the last box of each row ends, from the top."""
    found: dict[float, float] = {}
    for kind in kinds:
        for x, y, width in boxes(picture, kind):
            found[y] = max(found.get(y, 0.0), x + width)
    return [found[y] for y in sorted(found)]


@pytest.mark.parametrize(
    "options", [{"method": "greedy"}, {"divisible": True}, {"slots": 3}, {"unit": "kv_group"}]
)
def test_a_layers_rows_are_as_long_as_its_devices_loads(options: dict[str, object]) -> None:
    found = made(**options)
    for index, layer in enumerate(found.layers):
        drawn = plan_picture(found, index)
        per_s = PLOT / layer.makespan_s
        busy = ends(drawn, "head", "part", "charge")[-2:]  # above them is the legend
        expected = [LEFT + load * per_s for load in layer.loads_s]
        assert busy == pytest.approx(expected, abs=ROUNDED)
        idle = sum(width for _, _, width in boxes(drawn, "idle")) - 12  # the legend's
        waits = sum(layer.makespan_s - load for load in layer.loads_s) * per_s
        assert idle == pytest.approx(waits, abs=2)


def test_it_says_what_it_shows() -> None:
    found = made(method="greedy")
    told = words(plan_picture(found))
    for said in ("small (synthetic)", "predicted", "2 x h200", "4,096 tokens", "ms", "greedy"):
        assert said in told
    assert f"bubble {100 * found.bubble_ratio:.2f} %" in told
    label = ElementTree.fromstring(plan_picture(found)).get("aria-label")
    assert label is not None
    assert "predicted" in label
    assert "makespan" in label


def test_all_layers_are_drawn_and_the_one_that_idles_most_is_named() -> None:
    found = made(method="contiguous")
    drawn = plan_picture(found)
    idle = [layer.makespan_s * len(layer.loads_s) - sum(layer.loads_s) for layer in found.layers]
    assert f"Layer {int(np.argmax(idle))}, which idles most" in words(drawn)
    told = [e.text or "" for e in ElementTree.fromstring(drawn).iter(f"{SVG}title")]
    for layer in range(3):
        for device in range(2):
            assert any(t.startswith(f"layer {layer}, device {device}: ") for t in told)
    assert "idles most" not in words(plan_picture(made(layers=1)))


def test_parts_of_divided_heads_are_told_apart() -> None:
    found = made(divisible=True, gpus=3, context_tokens=65_536)
    layer = int(np.argmax(found.divisions))
    assert found.divisions[layer] > 0
    parts = list(boxes(plan_picture(found, layer), "part"))[1:]  # the first is the legend's
    divided = [heads for heads in found.layers[layer].heads if len(heads) > 1]
    assert len(parts) == sum(map(len, divided))
    assert "part of a divided head" in words(plan_picture(found))
    assert "part of a divided head" not in words(plan_picture(made(method="greedy")))


def test_slots_say_how_many_hold_a_group() -> None:
    found = made(slots=3)
    assert found.padding is not None
    told = words(plan_picture(found, 0))
    assert f"{found.padding.padded} of 18 hold nothing" in told
    assert " of 3 slots" in told


def test_what_was_measured_is_beside_what_was_predicted_on_one_scale() -> None:
    found = made(method="greedy")
    loads = np.array([layer.loads_s for layer in found.layers])
    measured = 2 * loads
    measured[1] = np.nan
    drawn = measured_picture(found, [0, 2], measured, "medians of 3 rounds, devices timed alone")
    told = words(drawn)
    assert "predicted and measured" in told
    assert "medians of 3 rounds, devices timed alone" in told
    assert "2.00 times as long" in told
    *_, predicted, _, last, other = ends(drawn, "head", "part", "charge", "idle")
    assert predicted == pytest.approx(LEFT + PLOT / 2, abs=0.2)
    assert max(last, other) == pytest.approx(LEFT + PLOT, abs=0.2)


def test_methods_stand_beside_each_other() -> None:
    small = ModelProfile.model_validate(profile())
    found = compare(
        small, gpus=[2], context_tokens=4096, methods=["contiguous", "greedy", "divided"],
        time_limit_s=1.0,
    )  # fmt: skip
    told = words(found.picture())
    for said in ("contiguous", "greedy", "divided", "2 x disaggregated", "2 x tensor_parallel"):
        assert said in told
    assert f"{found.rows[0].over_bound:.4f} x bound" in told


def test_a_notebook_shows_the_same_picture() -> None:
    found = made(method="greedy")
    assert found._repr_svg_() == plan_picture(found)


def test_names_are_text_and_nothing_is_loaded_or_run() -> None:
    found = made(method="greedy")
    named = found.profile.model_copy(update={"name": '<script>"&'})
    drawn = plan_picture(found.model_copy(update={"profile": named}))
    assert "script" not in {e.tag.removeprefix(SVG) for e in ElementTree.fromstring(drawn).iter()}
    assert '<script>"&' in words(drawn)
    assert "url(" not in STYLE
    assert "href" not in drawn
