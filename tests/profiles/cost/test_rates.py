import numpy as np
import pytest
from pydantic import ValidationError

from profiles.catalogue import device_names, device_profile
from profiles.cost.fitted import FITTED
from profiles.cost.rates import Rates
from profiles.cost.roofline import fastest_possible_s, roofline
from profiles.cost.work import FEATURES, INDEX, Workload

RATES = Rates(
    device="h200",
    phase="prefill",
    seconds_per={name: 2.0**i for i, name in enumerate(FEATURES)},
    source="made up for this test",
)


def test_seconds_are_the_sum_over_features() -> None:
    work = np.arange(3 * len(FEATURES), dtype=float).reshape(3, len(FEATURES))
    expected = [sum(w * 2.0**i for i, w in enumerate(row)) for row in work]
    assert RATES.seconds(work).tolist() == expected


def test_the_version_names_the_content() -> None:
    twin = Rates.model_validate_json(RATES.model_dump_json())
    assert twin.version == RATES.version
    slower = RATES.seconds_per | {"launches": 1.5}
    assert RATES.model_copy(update={"seconds_per": slower}).version != RATES.version


@pytest.mark.parametrize("field", ["seconds_per", "std"])
def test_every_feature_and_no_other(field: str) -> None:
    fields = RATES.model_dump() | {field: {"launches": 1.0}}
    with pytest.raises(ValidationError, match=f"{field}: must have exactly the features launches"):
        Rates.model_validate(fields)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_a_rate_is_a_finite_number_of_seconds(value: float) -> None:
    fields = RATES.model_dump() | {"seconds_per": RATES.seconds_per | {"launches": value}}
    with pytest.raises(ValidationError):
        Rates.model_validate(fields)


def test_beyond_the_measured_context_is_extrapolation() -> None:
    fitted = RATES.model_copy(update={"fitted_to_tokens": 16384, "samples": 10})
    assert fitted.measured
    assert not RATES.measured
    assert fitted.extrapolated(Workload(16385))
    assert not fitted.extrapolated(Workload(16384))
    assert not RATES.extrapolated(Workload(10**6))


@pytest.mark.parametrize("name", device_names())
def test_the_roofline_is_positive_and_never_beats_the_chip(name: str) -> None:
    device = device_profile(name)
    for phase in ("prefill", "decode"):
        prior = roofline(device, phase)
        fitted = FITTED[device.backend][phase]
        assert {n for n, s in prior.seconds_per.items() if s > 0} == set(fitted)
        assert not prior.measured
    work = np.random.default_rng(0).lognormal(10, 5, size=(50, len(FEATURES)))
    everything = roofline(device.model_copy(update={"backend": "triton"}), "decode")
    assert (everything.seconds(work) >= fastest_possible_s(device, work)).all()


def test_the_chip_is_as_fast_as_its_slower_side() -> None:
    device = device_profile("h200")
    work = np.zeros((2, len(FEATURES)))
    products = ("dense_tile_flops", "gathered_tile_flops", "sampled_flops", "projection_flops")
    work[0, [INDEX[name] for name in products]] = device.peak_flops
    work[1, INDEX["kv_bytes"]] = 3 * device.memory_bandwidth
    work[1, INDEX["dense_tile_flops"]] = device.peak_flops
    assert fastest_possible_s(device, work).tolist() == [4, 3]


def test_the_h200_rates_of_public_tables_are_plausible() -> None:
    device = device_profile("h200")
    prefill, decode = (rates for rates in device.rates if "aiconfigurator" in rates.source)
    assert 5e14 < 1 / prefill.seconds_per["dense_tile_flops"] < device.peak_flops
    assert 3e12 < 1 / decode.seconds_per["kv_bytes"] < device.memory_bandwidth
    assert (prefill.fitted_to_tokens, decode.fitted_to_tokens) == (16384, 131072)
    for rates in (prefill, decode):
        dense = rates.seconds_per["dense_tile_flops"]
        for product in ("gathered_tile_flops", "sampled_flops"):
            assert rates.seconds_per[product] == pytest.approx(dense)
        assert rates.std is not None
        for unseen in ("projection_flops", "link_bytes", "scored_blocks"):
            expected = roofline(device, rates.phase).seconds_per[unseen]
            assert rates.seconds_per[unseen] == pytest.approx(expected, rel=1e-5)
            assert rates.std[unseen] == pytest.approx(expected, rel=1e-3)
