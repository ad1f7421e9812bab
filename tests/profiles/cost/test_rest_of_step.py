"""MLP, projections and all-reduces from a model's shape: counted by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.catalogue import catalogue_rates, device_profile
from profiles.cost.rest_of_step import RestOfStep, rest_of_step
from profiles.cost.work import Workload
from profiles.public_models import MODELS

LLAMA = MODELS["Llama-3-8B"]
H200 = device_profile("h200")


def rest(shape: Architecture, workload: Workload, *types: str) -> RestOfStep:
    found = rest_of_step(shape, workload, types, catalogue_rates(types, workload.phase))
    assert found is not None
    return found


def test_a_prefill_is_its_flops() -> None:
    found = rest(LLAMA, Workload(131_072), *["h200"] * 8)
    mlp = 2 * 131_072 * 3 * 4096 * 14336 * 32 / 8
    qkvo = 2 * 131_072 * 4096 * 128 * (32 + 32 + 8 + 8) * 32 / 8
    assert found.mlp_s == pytest.approx(mlp / H200.peak_flops, rel=1e-3)
    assert found.projections_s == pytest.approx(qkvo / H200.peak_flops, rel=1e-3)
    reduced = 32 * 2 * 2 * 7 / 8 * 131_072 * 4096 * 2
    assert found.all_reduce_s == pytest.approx(reduced / H200.link_bandwidth, rel=1e-3)


def test_a_decode_is_the_reading_of_weights() -> None:
    found = rest(LLAMA, Workload(131_072, "decode"), "h200")
    assert found.mlp_s == pytest.approx(32 * 3 * 4096 * 14336 * 2 / H200.memory_bandwidth)
    assert found.weights_s == found.projections_s
    assert found.all_reduce_s == 0.0


def test_a_token_passes_some_experts_and_a_batch_reads_at_most_all() -> None:
    mixtral = LLAMA.model_copy(update={"experts": 8, "experts_per_token": 2})
    prefill, decode = Workload(131_072), Workload(131_072, "decode")
    assert rest(mixtral, prefill, "h200").mlp_s == pytest.approx(
        2 * rest(LLAMA, prefill, "h200").mlp_s
    )
    one = rest(LLAMA, decode, "h200").mlp_s
    assert rest(mixtral, decode, "h200").mlp_s == pytest.approx(2 * one)
    many = Workload(131_072, "decode", batch_size=64)
    assert rest(mixtral, many, "h200").mlp_s == pytest.approx(8 * one)


def test_without_a_gate_there_are_two_matrices() -> None:
    ungated = LLAMA.model_copy(update={"mlp_matrices": 2})
    pair = [rest(shape, Workload(4096), "h200").mlp_s for shape in (ungated, LLAMA)]
    assert pair[0] == pytest.approx(pair[1] * 2 / 3)


def test_an_unknown_mlp_is_not_guessed() -> None:
    rates = catalogue_rates(["h200"], "prefill")
    assert rest_of_step(LLAMA.attention, Workload(4096), ["h200"], rates) is None


def test_the_slowest_device_counts() -> None:
    step = Workload(4096)
    mixed, slow = rest(LLAMA, step, "h200", "a100"), rest(LLAMA, step, "a100", "a100")
    assert mixed == slow


def test_measured_rates_replace_the_sheets_but_never_pass_them() -> None:
    rates = catalogue_rates(["h200"], "prefill")["h200"]

    def with_rate(seconds: float) -> float:
        measured = rates.model_copy(
            update={"seconds_per": {**rates.seconds_per, "projection_flops": seconds}}
        )
        found = rest_of_step(LLAMA, Workload(4096), ["h200"], {"h200": measured})
        assert found is not None
        return found.mlp_s

    sheet = 1 / H200.peak_flops
    assert with_rate(2 * sheet) == pytest.approx(2 * with_rate(sheet))
    assert with_rate(0.0) == with_rate(sheet)


@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from(["prefill", "decode"]),
    st.integers(1, 2**20),
    st.integers(1, 64),
)
def test_more_tokens_take_longer_and_more_devices_no_longer(
    name: str, phase: Any, context: int, batch: int
) -> None:
    shape = MODELS[name]
    one = rest(shape, Workload(context, phase, batch), "h200")
    more = rest(shape, Workload(context, phase, 2 * batch), "h200")
    shared = rest(shape, Workload(context, phase, batch), *["h200"] * 4)
    assert more.mlp_s >= one.mlp_s > 0
    assert more.projections_s >= one.projections_s >= one.weights_s > 0
    assert shared.mlp_s == pytest.approx(one.mlp_s / 4)
    assert shared.all_reduce_s > one.all_reduce_s == 0
