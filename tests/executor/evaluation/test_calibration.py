"""What errors cost the loss: a known ratio found again, and what cannot be calibrated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executor.errors import EvaluationError
from executor.evaluation import losses
from executor.evaluation.calibration import Calibrated, calibrate, with_ratio
from executor.evaluation.scoring import Computed
from executor.evaluation.texts import windows
from executor.inference.budget_policy import BudgetPolicy
from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from profiles.measuring.loading import Loaded
from profiles.model import ModelProfile
from solver.budgets.least_error import summed_error
from tests.executor.evaluation.builders import save_words, task_tokenizer, tiny_model, tiny_profile

CONTEXT, DENSITIES = 256, (0.5, 0.75)
DENSE_NATS = 2.0
MEASURED = {
    "model": "another",
    "weights_sha256": "0" * 64,
    "data_sha256": "0" * 64,
    "prompts": {"text": 2},
    "rows": 4,
    "seed": 0,
    "block_tokens": 32,
    "piece_tokens": 16,
    "sink_tokens": 32,
    "local_tokens": 32,
    "versions": {},
    "seconds": 1.0,
}


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    tokenizer = task_tokenizer()
    return Loaded(tiny_model(len(tokenizer)), tokenizer, tiny_profile().architecture, "0" * 64)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Six windows of 256 tokens, none like another; the tiny model's loss on them does rise."""
    return save_words(tmp_path / "text.txt")


def losing(
    monkeypatch: pytest.MonkeyPatch, profile: ModelProfile, ratios: list[float]
) -> list[Any]:
    """A model of which prompt n loses ratios[n] times the budgets' error; what it is asked."""
    asked: list[Any] = []

    def surprise(
        _: Any, ids: tuple[int, ...], scored: int, policy: BudgetPolicy | None, block: int
    ) -> tuple[float, Computed]:
        assert (len(ids), scored, block) == (CONTEXT, CONTEXT // 2, 64)
        prompt = len(asked) // (1 + len(DENSITIES))
        asked.append(policy)
        if policy is None:
            return DENSE_NATS + prompt, Computed(1, 1)
        error = summed_error(profile, np.array(policy.tokens), Workload(CONTEXT))
        return DENSE_NATS + prompt + ratios[prompt] * error, Computed(1, 1)

    monkeypatch.setattr(losses, "surprise", surprise)
    return asked


def found(loaded: Loaded, profile: ModelProfile, text: Path, prompts: int) -> Calibrated:
    return calibrate(loaded, profile, text, CONTEXT, DENSITIES, prompts, lambda *_: None)


def test_a_known_ratio_is_found_again(
    loaded: Loaded, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Student's t of two degrees of freedom is 4.303 at 95 %; the standard error is 1 here."""
    profile, root = tiny_profile(CONTEXT), np.sqrt(3)
    asked = losing(monkeypatch, profile, [7 - root, 7, 7 + root])
    calibrated = found(loaded, profile, text, 3)
    ratio = calibrated.per_error
    assert ratio.mean == pytest.approx(7)
    assert (ratio.low, ratio.high) == pytest.approx((7 - 4.303, 7 + 4.303), abs=1e-3)
    assert (ratio.context_tokens, ratio.prompts) == (CONTEXT, 3)
    assert [policy is None for policy in asked] == [True, False, False] * 3
    for point, density in zip(calibrated.points, DENSITIES, strict=True):
        assert point.density == density
        assert point.nats == pytest.approx(7 * point.error)
    assert calibrated.points[0].error > calibrated.points[1].error
    kept = with_ratio(profile, ratio)
    assert isinstance(kept.heads, CurvesForm)
    assert ModelProfile.parse(kept.model_dump_json(), "kept").heads == kept.heads
    assert kept.heads.loss_per_error == ratio


def test_prompts_are_spread_evenly_over_the_data(
    loaded: Loaded, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []

    def surprise(_: Any, ids: tuple[int, ...], *asked: Any) -> tuple[float, Computed]:
        read.append(ids)
        return float(asked[1] is not None), Computed(1, 1)

    monkeypatch.setattr(losses, "surprise", surprise)
    found(loaded, tiny_profile(CONTEXT), text, 2)
    every = windows(text, loaded.tokenizer, CONTEXT, None)
    assert len(every) == 6
    assert read == [every[1]] * 3 + [every[4]] * 3


def test_budgets_are_shared_out_over_the_model_in_the_profiles_own_pieces(
    loaded: Loaded, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[BudgetPolicy] = []

    def surprise(*asked: Any) -> tuple[float, Computed]:
        assert asked[4] == 32
        read.extend([] if asked[3] is None else [asked[3]])
        return float(asked[3] is not None), Computed(1, 1)

    monkeypatch.setattr(losses, "surprise", surprise)
    profile = tiny_profile(CONTEXT, measurement=MEASURED)
    assert isinstance(profile.heads, CurvesForm)
    first, *others = profile.heads.output_error or []
    louder = (100 * np.array(first)).tolist()
    heads = profile.heads.model_copy(update={"output_error": [louder, *others]})
    found(loaded, profile.model_copy(update={"heads": heads}), text, 2)
    tokens = np.array(read[0].tokens)
    assert tokens[0].sum() > tokens[1].sum()
    assert (tokens % 32).any()


def test_an_interval_ends_at_nothing(
    loaded: Loaded, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tiny_profile(CONTEXT)
    losing(monkeypatch, profile, [1.0, 9.0])
    assert found(loaded, profile, text, 2).per_error.low == 0


def test_a_loss_that_does_not_rise_says_nothing(
    loaded: Loaded, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tiny_profile(CONTEXT)
    losing(monkeypatch, profile, [-1.0, 0.5])
    with pytest.raises(EvaluationError, match="--densities: the loss does not rise"):
        found(loaded, profile, text, 2)


def test_by_definition_of_a_models_own_losses(
    loaded: Loaded, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses within both budgets, less twice dense attention's, by the sum of the errors."""
    profile, nats, real = tiny_profile(CONTEXT), [], losses.surprise

    def watched(*asked: Any) -> tuple[float, Computed]:
        answer = real(*asked)
        nats.append(answer[0])
        return answer

    monkeypatch.setattr(losses, "surprise", watched)
    calibrated = found(loaded, profile, text, 2)
    dense, half, most = np.array(nats).reshape(2, 3).T
    errors = sum(point.error for point in calibrated.points)
    assert calibrated.per_error.mean == pytest.approx(
        float((half + most - 2 * dense).mean() / errors)
    )
    assert (half != dense).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": 7}, "has 6 windows of 256 tokens, fewer than 7 --windows"),
        ({"prompts": 1}, "--windows: 1 must be 2 at least"),
        ({"context": 512}, "--context: 512 tokens are beyond the model's 256 positions"),
        ({"densities": [1.0]}, "--densities: 1.0 must be above 0 and below 1"),
        ({"densities": [0.2]}, r"--densities: \S+ is too little at a context of 256 tokens"),
        ({"data": Path("none.txt")}, "--data none.txt: cannot be read"),
    ],
)
def test_what_cannot_be_calibrated(
    loaded: Loaded, text: Path, changes: dict[str, Any], words: str
) -> None:
    asked: dict[str, Any] = {"data": text, "context": CONTEXT, "densities": [0.5], "prompts": 2}
    with pytest.raises(EvaluationError, match=words):
        calibrate(loaded, tiny_profile(CONTEXT), progress=lambda *_: None, **{**asked, **changes})


def test_other_weights_than_the_profiles_are_refused(loaded: Loaded, text: Path) -> None:
    profile = tiny_profile(CONTEXT, measurement={**MEASURED, "weights_sha256": "f" * 64})
    with pytest.raises(EvaluationError, match=r"--model: its weights .* was measured on"):
        found(loaded, profile, text, 2)
