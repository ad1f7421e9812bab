"""`hplb profiles list` and `show`: tables, JSON and plot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from pydantic import ValidationError

from profiles.architecture import Architecture
from profiles.catalogue import DEFAULT_PROFILE, catalogue_names
from profiles.heads import CurvesForm
from profiles.heterogeneity import rank_correlations
from profiles.measurement import Measurement
from profiles.model import ModelProfile
from tests.profiles.cli.command import hplb, refused

LAYERS, HEADS = 3, 4
DIGEST = "666c03de2f0f035f6617827abfa8de1f63a5156202f1a4cbab780547c41f627a"


def test_list() -> None:
    assert DEFAULT_PROFILE in hplb("list").stdout
    listed = json.loads(hplb("list", "--json").stdout)
    assert [entry["name"] for entry in listed] == list(catalogue_names())


def test_show() -> None:
    shown = hplb("show", DEFAULT_PROFILE)
    assert shown.exit_code == 0
    for part in (
        "selection: pooled\n",
        "(synthetic)",
        "32 layers x 32 heads (8 KV)",
        "recovery_curves",
        "NOT measured",
    ):
        assert part in shown.stdout
    layers = json.loads(hplb("show", DEFAULT_PROFILE, "--json").stdout)["layers"]
    assert [layer["layer"] for layer in layers] == list(range(32))
    assert all(
        0 < layer["least_tokens"] < layer["mean_tokens"] < layer["most_tokens"] <= 131072
        for layer in layers
    )


def test_show_of_nothing() -> None:
    assert DEFAULT_PROFILE in refused(hplb("show", "nobody"))


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    steep = np.linspace(0.2, 2.0, LAYERS * HEADS).reshape(LAYERS, HEADS, 1, 1)
    budgets = np.array([[64, 128, 256, 512], [64, 256, 1024, 2048]])
    recovery = (budgets / budgets[:, -1:]) ** steep
    heads = CurvesForm(
        context_tokens=[512, 2048], budget_tokens=budgets.tolist(), recovery=recovery.tolist()
    )
    shares = {name: np.random.default_rng(0).random((LAYERS, HEADS)) for name in ("512", "2048")}
    shares["2048"][1] = 0.5
    measurement = Measurement(
        model="m",
        weights_sha256="0",
        data_sha256="1",
        prompts={"niah": 3, "text": 2},
        rows=64,
        seed=0,
        block_tokens=64,
        sink_tokens=64,
        local_tokens=64,
        versions={},
        seconds=5.0,
        stability=rank_correlations("context", shares),
    )
    made = ModelProfile(
        name="measured",
        architecture=Architecture(
            layers=LAYERS, query_heads=HEADS, kv_heads=2, head_dim=8, hidden_size=32
        ),
        heads=heads,
        source="a test",
        synthetic=False,
        measurement=measurement,
    )
    made.save(tmp_path / "p.json")
    return tmp_path / "p.json"


def test_tables(profile: Path) -> None:
    shown = hplb("show", profile).stdout
    assert "measured: 3 niah, 2 text; 64 rows a prompt, blocks of 64 tokens, 5 s" in shown
    assert "share of 2048 tokens" in shown
    assert "512 / 2048" in shown


def test_a_measurement_in_one_size_keeps_its_profiles_digest(profile: Path) -> None:
    """Computed before a measurement could state pieces."""
    made = ModelProfile.load(profile)
    assert made.measurement is not None
    assert made.measurement.piece_tokens == made.measurement.block_tokens == 64
    assert "piece_tokens" not in profile.read_text()
    assert made.digest == DIGEST
    record = made.measurement.model_dump()
    finer = Measurement.model_validate({**record, "piece_tokens": 16})
    assert finer.model_dump()["piece_tokens"] == 16
    assert made.model_copy(update={"measurement": finer}).digest != DIGEST
    for piece, words in ((48, "does not divide block_tokens, 64"), (8, "greater than or equal")):
        with pytest.raises(ValidationError, match=words):
            Measurement.model_validate({**record, "piece_tokens": piece})


def test_json(profile: Path) -> None:
    shown = json.loads(hplb("show", profile, "--json").stdout)
    assert shown["shares_context_tokens"] == 2048
    assert [row["layer"] for row in shown["shares"]] == [0, 1, 2]
    for row in shown["shares"]:
        assert 0 < row["least_share"] < row["median_share"] < row["most_share"] <= 1
    assert shown["measurement"]["stability"][0]["layers"][1] is None


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written, laid out."""
    figures: list[Figure] = []
    save = Figure.savefig

    def saving(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saving)
    return figures


@pytest.mark.parametrize("name", ["measured", "m" * 128])
def test_plot(profile: Path, tmp_path: Path, drawn: list[Figure], name: str) -> None:
    content = json.loads(profile.read_text())
    recovery = np.array(content["heads"]["recovery"])
    content["heads"]["selected_recovery"] = (0.9 * recovery).tolist()
    profile.write_text(json.dumps({**content, "name": name}))
    result = hplb("show", profile, "--plot", tmp_path / "p.png")
    assert result.exit_code == 0, result.stderr
    png = (tmp_path / "p.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert b"3 layers x 4 heads (2 KV); measured on" in png
    [figure] = drawn
    maps, curves, contexts = figure.axes[:2], figure.axes[3], figure.axes[4]
    assert [axis.images[0].get_array().shape for axis in maps] == [(LAYERS, HEADS)] * 2
    # Every head's curve and the median, by the best pieces and by those that are chosen.
    assert [len(line.get_ydata()) for line in curves.lines[:-1]] == [4] * 2 * (LAYERS * HEADS + 1)
    np.testing.assert_allclose(curves.lines[0].get_ydata(), recovery[0, 0, -1])
    np.testing.assert_allclose(
        curves.lines[-2].get_ydata(), np.median(0.9 * recovery[:, :, -1], (0, 1))
    )
    assert len(contexts.lines[0].get_xdata()) == LAYERS * HEADS
    assert "rank correlation 1.00" in contexts.get_title()
    edge = figure.bbox
    for artist in (figure._suptitle, *(axis.title for axis in figure.axes)):
        box = artist.get_window_extent()
        assert edge.x0 <= box.x0 <= box.x1 <= edge.x1
        assert edge.y0 <= box.y0 <= box.y1 <= edge.y1


def test_no_figure_exceeds_a_layers_window(
    profile: Path, tmp_path: Path, drawn: list[Figure]
) -> None:
    content = json.loads(profile.read_text())
    content["architecture"]["windows"] = [96, None, None]
    profile.write_text(json.dumps(content))
    result = hplb("show", profile, "--json", "--plot", tmp_path / "p.png")
    shown = json.loads(result.stdout)
    assert [row["most_tokens"] <= 96 for row in shown["layers"]] == [True, False, False]
    assert shown["shares"][0]["most_share"] == 96 / 2048
    scaled, contexts = drawn[0].axes[0].images[0].get_array(), drawn[0].axes[3].lines[0]
    assert scaled[0].max() == contexts.get_ydata()[:HEADS].max() == 96 / 2048
    assert contexts.get_xdata()[:HEADS].max() == 96 / 512


def test_bars_go_as_far_as_the_least_correlation(
    profile: Path, tmp_path: Path, drawn: list[Figure]
) -> None:
    content = json.loads(profile.read_text())
    [pair] = content["measurement"]["stability"]
    low = {**pair, "axis": "task", "between": ["niah", "text"], "model": -0.25}
    content["measurement"]["stability"] = [pair, pair, pair, low]
    profile.write_text(json.dumps(content))
    assert hplb("show", profile, "--plot", tmp_path / "p.png").exit_code == 0
    bars = drawn[0].axes[-1]
    assert [patch.get_width() for patch in bars.patches] == [-0.25] + [pair["model"]] * 3
    assert -0.3 < bars.get_xlim()[0] < -0.25
    assert bars.get_yticklabels()[0].get_text() == "niah / text"


def test_many_layers_stay_visible(profile: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    content = json.loads(profile.read_text())
    content["architecture"]["layers"] = 80
    content["heads"]["recovery"] = content["heads"]["recovery"][:1] * 80
    del content["measurement"]
    profile.write_text(json.dumps(content))
    assert hplb("show", profile, "--plot", tmp_path / "p.png").exit_code == 0
    height = drawn[0].axes[0].get_window_extent().height / drawn[0].dpi * 130
    assert height > 80 * 12


def test_curves_without_a_measurement_are_plotted(
    profile: Path, tmp_path: Path, drawn: list[Figure]
) -> None:
    content = json.loads(profile.read_text())
    del content["measurement"]
    profile.write_text(json.dumps(content))
    assert hplb("show", profile, "--plot", tmp_path / "p.png").exit_code == 0
    # One map with its scale, and the curves; no empty panel.
    assert len(drawn[0].axes) == 3
    assert json.loads(hplb("show", profile, "--json").stdout)["measurement"] is None


def test_what_cannot_be_plotted(profile: Path, tmp_path: Path) -> None:
    wrong = refused(hplb("show", profile, "--plot", tmp_path / "none" / "p.png"))
    assert "cannot be written" in wrong
    content = json.loads(profile.read_text())
    del content["measurement"]
    content["heads"] = {"form": "budgets", "tokens": [[64] * HEADS] * LAYERS}
    profile.write_text(json.dumps(content))
    wrong = refused(hplb("show", profile, "--plot", tmp_path / "p.png"))
    assert "only recovery curves are plotted" in wrong
