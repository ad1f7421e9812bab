"""Every method computes at most what `uniform` does, and as near to it as its knob allows."""

from dataclasses import replace

import numpy as np
import pytest

from executor.errors import EvaluationError
from executor.evaluation import density
from executor.evaluation.density import Setting, uniform_within
from executor.evaluation.makespan import Devices
from executor.evaluation.methods import METHODS, ONLINE, Maker, check_names, unusable
from executor.evaluation.top_p import Watching
from executor.inference.policy import LayerCall
from profiles.selection import POOLED, SAMPLED, Sampled, SinkLocal
from tests.executor.evaluation.builders import HEADS, KV_HEADS, LAYERS, tiny_profile

SIZE = 16
SETTING = Setting(tiny_profile(), 256, SIZE, [256, 250, 231], 32)
SHIFTED = ("moa", "shifting", "max_min", "max_min_model", "least_error", "least_error_model")


def brute_tiles(tokens: np.ndarray, lengths: list[int]) -> int:
    total = 0
    for length in lengths:
        for budget in tokens.ravel():
            for row in range(-(-length // SIZE)):
                total += min(-(-int(budget) // SIZE), row + 1)
    return total


def watching() -> Watching:
    import torch

    torch.manual_seed(0)
    found = Watching(LAYERS, HEADS, SIZE)
    for layer in range(LAYERS):
        q, keys = torch.randn(HEADS, 250, 16), torch.randn(KV_HEADS, 250, 16)
        found.attend(LayerCall(layer, 3 * q, keys, keys, 0.25))
    return found


@pytest.fixture(autouse=True)
def _no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules without a search that the clock ends: budgets are the same at every call."""
    monkeypatch.setattr(density, "SEARCH_S", 0.0)


@pytest.fixture(scope="module")
def maker() -> Maker:
    watched = {name: watching() for name in ONLINE}
    return Maker(SETTING, POOLED, Devices(2, "h200"), watched)


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_methods_compute_no_more_than_uniform_which_is_within_the_density(
    maker: Maker, density: float
) -> None:
    made = {method.name: method for method in maker.at(density, METHODS)}
    assert list(made) == [name for name in METHODS if name != "dense"]
    tiles = {name: brute_tiles(m.tokens, [256, 250, 231]) for name, m in made.items()}
    dense = brute_tiles(maker.dense().tokens, [256, 250, 231])
    assert tiles["uniform"] <= density * dense
    assert tiles["streaming_llm"] == tiles["uniform"]
    if density < 1:
        assert brute_tiles(made["uniform"].tokens + SIZE, [256, 250, 231]) > density * dense
    for name in SHIFTED:
        assert tiles[name] <= tiles["uniform"], name
        assert tiles[name] >= 0.85 * tiles["uniform"], name
    assert tiles["bubble_filled"] >= tiles["max_min"]
    assert tiles["max_min"] <= tiles["max_min_as_filled"] <= tiles["bubble_filled"]
    assert made["max_min"].tokens.min() >= min(32, made["uniform"].tokens.min())
    assert isinstance(made["moa"].selection, SinkLocal)
    assert made["max_min"].selection == POOLED


def test_max_min_never_recovers_less_than_shifting_at_its_least(maker: Maker) -> None:
    made = {m.name: m for m in maker.at(0.4, ("uniform", "shifting", "max_min", "max_min_model"))}
    least = {name: method.least_recovery or 0.0 for name, method in made.items()}
    assert least["uniform"] <= least["shifting"] <= least["max_min"] <= least["max_min_model"]


def test_curves_speak_for_the_selection_they_were_measured_with_alone(maker: Maker) -> None:
    measured = replace(SETTING, profile=tiny_profile(selection=SAMPLED.model_dump()))
    names = ("uniform", "streaming_llm")
    for setting, selection, known in (
        (SETTING, POOLED, True),
        (SETTING, SAMPLED, False),
        (measured, SAMPLED, True),
        (measured, POOLED, False),
    ):
        made = replace(maker, setting=setting, selection=selection).at(0.4, names)
        least = {method.name: method.least_recovery is not None for method in made}
        assert least == {"uniform": known, "streaming_llm": False}


def test_choosing_by_sampled_rows_is_priced(maker: Maker) -> None:
    long = replace(SETTING, context_tokens=2**17)
    [uniform] = maker.at(0.2, ("uniform",))
    uniform = replace(uniform, tokens=uniform.tokens * 2**9)
    pooled, sampled = (
        replace(uniform, selection=s).predicted_s(long, Devices(2, "h200"))
        for s in (POOLED, Sampled(rows=2))
    )
    # 2 of 16 rows against every key, at half of a tile's FLOPs.
    assert pooled < sampled < 1.6 * pooled


def test_makespan_falls_with_the_budgets(maker: Maker) -> None:
    # A context at which attention, not the launch, takes the time.
    long = replace(SETTING, context_tokens=2**17)
    of = (maker.dense(), *maker.at(0.2, ("uniform", "top_p")))
    grown = [replace(m, tokens=m.tokens * 2**9) for m in of]
    dense, *sparse = (m.predicted_s(long, Devices(2, "h200")) for m in grown)
    assert all(0.05 * dense < seconds < dense for seconds in sparse)


def test_a_density_below_a_block_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"--densities: 0\.0\d+ is too little .* one block"):
        uniform_within(SETTING, 0.05)


def test_what_a_profile_lacks_is_named() -> None:
    no_curves = tiny_profile(heads={"form": "budgets", "tokens": [[64.0] * HEADS] * LAYERS})
    assert unusable(METHODS, SETTING.profile) == {}
    erring = ["least_error", "least_error_model", "least_gradient_error"]
    assert list(unusable(METHODS, tiny_profile(errors=False))) == erring
    assert "uniform" not in unusable(METHODS, no_curves)
    assert "recovery curves" in unusable(METHODS, no_curves)["max_min"]
    with pytest.raises(EvaluationError, match="'best' is unknown; known are dense,"):
        check_names(["best"])


def test_setups_tell_methods_apart(maker: Maker) -> None:
    made = list(maker.at(0.4, ("uniform", "streaming_llm", "max_min")))
    assert len({method.setup for method in made}) == 3
    again = list(maker.at(0.4, ("uniform", "streaming_llm", "max_min")))
    assert [m.setup for m in made] == [m.setup for m in again]
