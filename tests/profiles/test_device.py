from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from profiles.catalogue import device_names, device_profile
from profiles.cost.roofline import fastest_possible_s, roofline
from profiles.cost.work import FEATURES, INDEX
from profiles.device import DeviceProfile
from profiles.errors import UnknownNameError


@pytest.mark.parametrize("name", device_names())
def test_every_device_of_the_catalogue_is_named_after_its_file(name: str) -> None:
    assert device_profile(name).name == name


def test_the_catalogue_knows_the_data_sheets() -> None:
    assert {"h200", "h100", "a100", "cpu"} <= set(device_names())
    assert device_profile("h200").peak_flops == 989e12
    assert device_profile("h200").memory_bandwidth == 4.8e12


def test_unknown_devices_get_the_known_ones_listed() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown device type 'h900': known are .*h200"):
        device_profile("h900")


@pytest.mark.parametrize("name", ["../models/llama-3.1-8b-synthetic", "", "h200.json"])
def test_a_device_name_is_never_a_path(name: str) -> None:
    with pytest.raises(UnknownNameError):
        device_profile(name)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["peak_flops", "memory_bandwidth", "link_bandwidth", "launch_s"])
def test_rates_of_a_data_sheet_are_positive_and_finite(field: str, value: float) -> None:
    fields: dict[str, Any] = device_profile("h200").model_dump() | {field: value}
    with pytest.raises(ValidationError, match=field):
        DeviceProfile.model_validate(fields)


def test_fitted_rates_are_found_by_phase() -> None:
    sheet = device_profile("h200")
    prior = roofline(sheet, "prefill")
    fitted = sheet.model_copy(update={"rates": [prior]})
    assert fitted.fitted("prefill") == prior
    assert fitted.fitted("decode") is None


def test_a_share_of_a_gpu_is_slower_at_attention_alone_and_unmeasured() -> None:
    whole, half = device_profile("h200"), device_profile("h200@0.5")
    assert half.name == "h200@0.5"
    assert (half.peak_flops, half.attention_share) == (whole.peak_flops, 0.5)
    assert half.memory_bytes == whole.memory_bytes // 2
    assert half.memory_bandwidth == whole.memory_bandwidth
    before, after = whole.fitted("prefill"), half.fitted("prefill")
    assert before is not None
    assert after is not None
    assert after.device == "h200@0.5"
    assert after.seconds_per["dense_tile_flops"] == 2 * before.seconds_per["dense_tile_flops"]
    gathered = (rates.seconds_per["gathered_tile_flops"] for rates in (before, after))
    assert next(gathered) == next(gathered) / 2
    assert after.seconds_per["sampled_flops"] == before.seconds_per["sampled_flops"]
    assert after.seconds_per["kv_bytes"] == before.seconds_per["kv_bytes"]
    assert not after.measured
    assert "unmeasured" in after.source
    prior = roofline(half, "decode").seconds_per
    assert prior["dense_tile_flops"] == pytest.approx(2 / 989e12)
    assert prior["projection_flops"] == pytest.approx(1 / 989e12)
    work = np.zeros((2, len(FEATURES)))
    work[[0, 1], [INDEX["dense_tile_flops"], INDEX["projection_flops"]]] = 989e12
    assert fastest_possible_s(half, work) == pytest.approx([2, 1])


@pytest.mark.parametrize(
    "name", ["h200@0", "h200@1", "h200@1.0", "h200@0.50", "h200@nan", "h200@.5", "h200@", "cpu@0.5"]
)
def test_a_share_is_written_in_one_way(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"a share is of a GPU, above 0 and below 1"):
        device_profile(name)


def test_shares_of_unknown_devices_are_unknown() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown device type 'h900@0.5'"):
        device_profile("h900@0.5")
