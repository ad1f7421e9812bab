from executor.attention.backends import BACKENDS
from profiles.cost.fitted import FITTED


def test_every_back_end_declares_what_its_seconds_are_fitted_on() -> None:
    assert set(FITTED) == set(BACKENDS)
    assert all(
        {"launches", "dense_tile_flops"} <= {*f} for b in FITTED.values() for f in b.values()
    )
