import numpy as np
import pytest

from profiles.cost.samples import Sample, SampleError
from profiles.cost.work import FEATURES, INDEX


def work(**counts: float) -> np.ndarray:
    units = np.zeros(len(FEATURES))
    for name, count in {"launches": 1.0, **counts}.items():
        units[INDEX[name]] = count
    return units


def test_a_sample_keeps_what_was_measured() -> None:
    sample = Sample(work(dense_tile_flops=1e12), 2e-3, age=3, context_tokens=4096)
    assert (sample.seconds, sample.age, sample.context_tokens) == (2e-3, 3, 4096)


@pytest.mark.parametrize("seconds", [0.0, -1.0, np.nan, np.inf, 1e-300, 1e300])
def test_seconds_no_clock_can_have_shown(seconds: float) -> None:
    with pytest.raises(SampleError, match=r"seconds: .* must be a number from 1e-09"):
        Sample(work(), seconds)


@pytest.mark.parametrize("units", [-1.0, np.nan, np.inf, 1e300])
def test_work_that_cannot_be_a_count_names_its_feature(units: float) -> None:
    with pytest.raises(SampleError, match=r"work: kv_bytes .* must be from 0"):
        Sample(work(kv_bytes=units), 1e-3)


@pytest.mark.parametrize("shape", [(), (0,), (len(FEATURES) - 1,), (2, len(FEATURES))])
def test_work_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(SampleError, match=r"work: shape .* must be \(10,\)"):
        Sample(np.ones(shape), 1e-3)


def test_no_work_at_all() -> None:
    with pytest.raises(SampleError, match="all counts are 0"):
        Sample(np.zeros(len(FEATURES)), 1e-3)


@pytest.mark.parametrize("age", [-1.0, np.nan, np.inf])
def test_age_must_be_rounds(age: float) -> None:
    with pytest.raises(SampleError, match="age"):
        Sample(work(), 1e-3, age=age)


def test_context_must_be_tokens() -> None:
    with pytest.raises(SampleError, match="context_tokens: 0 must be at least 1"):
        Sample(work(), 1e-3, context_tokens=0)
