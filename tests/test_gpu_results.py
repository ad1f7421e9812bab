"""Results files of a GPU become tables, rates and verdicts, and nothing else does."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu.make_plans import attention_rates
from benchmarks.gpu_results import __main__ as command
from benchmarks.gpu_results.__main__ import ROOT, Checkout, differences, keep, rewrite
from benchmarks.gpu_results.calls import calls, features
from benchmarks.gpu_results.fitting import LEAST_CALLS, errors, fits
from benchmarks.gpu_results.reading import Results, ResultsError, device_type, newest, read
from profiles.catalogue import catalogue_profile, catalogue_rates, device_names, device_profile
from profiles.cost.regression import refit
from profiles.cost.roofline import fastest_possible_s, roofline
from profiles.cost.samples import Sample
from profiles.cost.work import FEATURES, INDEX
from solver.planning.planner import make_plan
from solver.request import PlanRequest
from tests.made_up_results import LABEL, PLANTED, Row, results


@pytest.fixture(scope="module")
def made_up() -> Row:
    return results()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """One without results."""
    for name in ("README.md", "docs/gpu.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "profiles/catalog").mkdir(parents=True)
    found = Checkout(tmp_path, made_up=True)
    rewrite(found)
    return found


Laid = Callable[[Row], Path]


@pytest.fixture
def laid(tmp_path: Path) -> Laid:
    """Writes a results file where a person may have put it."""

    def write(found: Row) -> Path:
        path = tmp_path / "found.json"
        path.write_text(json.dumps(found))
        return path

    return write


@pytest.fixture
def catalogue(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The checkout's measured rates as this process's own."""
    measured = checkout.root / command.MEASURED
    monkeypatch.setattr("profiles.catalogue.MEASURED", measured)
    device_profile.cache_clear()
    yield measured
    device_profile.cache_clear()


def taken(found: Row, laid: Laid) -> Results:
    (only,) = newest([read(laid(found), made_up=True)]).values()
    return only


def test_this_repository_shows_what_its_results_files_say_and_no_more() -> None:
    """Run `python -m benchmarks.gpu_results` where this fails."""
    assert differences(Checkout(ROOT)) == []


def test_planted_rates_are_found_again(made_up: Row, laid: Laid) -> None:
    found = {fit.refit.rates.phase: fit for fit in fits(taken(made_up, laid))}
    told_apart = {
        "prefill": ("dense_tile_flops", "gathered_tile_flops", "query_blocks", "scored_blocks"),
        "decode": ("scored_blocks",),
    }
    for phase, fit in found.items():
        rates = fit.refit.rates
        assert fit.impossible == ()
        for name in ("launches", "kv_bytes", "projection_flops", *told_apart[phase]):
            planted = PLANTED[phase][name]
            assert rates.seconds_per[name] == pytest.approx(planted, rel=0.1), (phase, name)
        prior = roofline(device_profile("h200"), phase).seconds_per["link_bytes"]
        assert rates.seconds_per["link_bytes"] == pytest.approx(prior)
        assert "link_bytes" in rates.source.partition("not measured: ")[2].partition(";")[0]
    # Every list of a decode is one of four heads, so that only the two together can be known.
    decode, planted = found["decode"].refit.rates.seconds_per, PLANTED["decode"]
    together = decode["kv_lists"] + 4 * decode["query_blocks"]
    assert together == pytest.approx(planted["kv_lists"] + 4 * planted["query_blocks"], rel=0.1)


def test_a_file_becomes_tables_verdicts_and_rates(
    made_up: Row, checkout: Checkout, laid: Laid, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "No GPU has run this code yet" in (checkout.root / "docs/gpu.md").read_text()
    keep(laid(made_up), checkout)
    assert len(differences(checkout)) == 3
    rewrite(checkout)
    assert differences(checkout) == []
    name = "gpu-h200-20010203-040506-0123456.json"
    assert json.loads((checkout.root / "benchmarks/results" / name).read_text()) == made_up
    told = capsys.readouterr().out
    for document in ("README.md", "docs/gpu.md"):
        text = (checkout.root / document).read_text()
        assert "No GPU has run this code yet" not in text
        assert name in text
        assert "NVIDIA H200, 2001-02-03, commit 0123456" in text
        assert "checks: 1 fine, 0 failed, 1 out of time" in text
        dense = next(r for r in made_up["sections"]["dense"]["rows"] if r["tokens"] == 32_768)
        assert f"{dense['tflops']:.0f} ({dense['tflops'] / 1.01:.0f} to " in text
    for text in (told, (checkout.root / "docs/gpu.md").read_text()):
        assert "dense causal >= 0.57 of the matrix product | missed | 2 of 6 | " in text
        assert "flashinfer#5326 shape, blocks of 64, > 0.40 of the matrix product | missed" in text
        assert "8 devices, divided, over dense >= 6 at 128K | met | 1 of 1 | 7.5 to 7.5" in text
        assert "per-head budgets, share of ideal >= 0.90 at density 0.1 and more | not" in text
        assert "pieces of 16 over blocks of 64 at equal pairs <= 1.10 | missed | 0 of 3 |" in text
    assert "| tokens | 64x64 by two heads | 128x128 |" in text
    assert "Programs of a decode by multiprocessors they ran on: 33 on 33, 264 on 132." in text
    assert "made-up (synthetic) | 131,072 | 3 | 64x64 | 7.50 (1.020)" in text


def test_plans_are_made_with_what_was_measured(
    made_up: Row, checkout: Checkout, laid: Laid, catalogue: Path
) -> None:
    public = catalogue_rates(["h200"], "prefill")["h200"]
    keep(laid(made_up), checkout)
    rewrite(checkout)
    assert [path.name for path in catalogue.iterdir()] == ["h200.json"]
    device_profile.cache_clear()
    for phase in ("prefill", "decode"):
        rates = catalogue_rates(["h200", "h200@0.5", "h100"], phase)
        assert "gpu-h200-20010203-040506-0123456.json" in rates["h200"].source
        whole, half = (rates[name].seconds_per["dense_tile_flops"] for name in ("h200", "h200@0.5"))
        assert half == pytest.approx(2 * whole)
        assert "gpu-h200" not in rates["h100"].source
    measured = catalogue_rates(["h200"], "prefill")["h200"]
    executors = [Sample(np.eye(len(FEATURES))[INDEX["launches"]], 3e-5)]
    refitted = refit(measured, device_profile("h200"), executors)
    assert refitted.rates.source == f"measurements; prior: {measured.source}"
    profile = catalogue_profile("llama-3.1-8b-synthetic")
    request = PlanRequest(profile=profile, gpus=8, context_tokens=32_768, method="greedy")
    before, after = (make_plan(request, [{"h200": rates}]) for rates in (public, measured))
    assert after.cost_model == {"h200": measured.version}
    assert after.makespan_s > 1.3 * before.makespan_s


def test_plans_for_the_benchmarks_assume_a_lists_cost_until_it_is_measured(
    made_up: Row, checkout: Checkout, laid: Laid, catalogue: Path
) -> None:
    assert not catalogue.exists()
    assumed = attention_rates(head_dim=128)
    block_s = 4 * 64 * 64 * 128 * assumed.seconds_per["dense_tile_flops"]
    assert assumed.seconds_per["query_blocks"] == pytest.approx(2 * block_s)
    assert "2 blocks a list assumed" in assumed.source
    keep(laid(made_up), checkout)
    rewrite(checkout)
    device_profile.cache_clear()
    found, measured = attention_rates(128), catalogue_rates(["h200"], "prefill")["h200"]
    for name, seconds in measured.seconds_per.items():
        gone = name in ("kv_bytes", "kv_lists", "projection_flops", "link_bytes")
        assert found.seconds_per[name] == (0 if gone else seconds)
    assert found.source == f"attention alone of: {measured.source}"


def test_a_figure_without_a_file_is_noticed(made_up: Row, checkout: Checkout, laid: Laid) -> None:
    keep(laid(made_up), checkout)
    rewrite(checkout)
    document = checkout.root / "docs/gpu.md"
    good = document.read_text()
    document.write_text(good.replace("checks: 1 fine", "checks: 2 fine"))
    assert [d for d in differences(checkout) if "docs/gpu.md" in d] == differences(checkout) != []
    document.write_text(good)
    (rates,) = (checkout.root / command.MEASURED).iterdir()
    rates.write_text(rates.read_text().replace('"launches": 0.00002', '"launches": 0.00001'))
    assert any("h200.json: not what gpu-h200" in each for each in differences(checkout))
    (kept,) = (checkout.root / "benchmarks/results").iterdir()
    kept.unlink()
    assert any("rates of no results file" in each for each in differences(checkout))
    rewrite(checkout)
    assert not list((checkout.root / command.MEASURED).iterdir())
    assert "No GPU has run this code yet" in document.read_text()
    assert differences(checkout) == []


def test_what_is_made_up_is_never_shipped(
    made_up: Row, laid: Laid, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = laid(made_up)
    with pytest.raises(ResultsError, match=LABEL):
        keep(path, Checkout(ROOT))
    monkeypatch.setattr(sys, "argv", ["gpu_results", str(path)])
    with pytest.raises(SystemExit, match=LABEL):
        command.main()


def test_tiny_and_interpreted_runs_are_no_measurements(made_up: Row, laid: Laid) -> None:
    honest = {key: value for key, value in made_up.items() if key != "label"}
    assert read(laid(honest)).device == "h200"
    with pytest.raises(ResultsError, match="a tiny run"):
        read(laid(honest | {"tiny": True}))
    section = honest["sections"]["dense"] | {"label": "interpreter, not a measurement"}
    with pytest.raises(ResultsError, match="interpreter, not a measurement"):
        read(laid(honest | {"sections": {"dense": section}}))


@pytest.mark.parametrize(
    "gpu",
    [
        None,
        "NVIDIA GH200 480GB",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA L40S",
    ],
)
def test_other_chips_are_refused_by_name(gpu: str | None, made_up: Row, laid: Laid) -> None:
    with pytest.raises(ResultsError, match="none of the catalogue's"):
        read(laid(made_up | {"machine": made_up["machine"] | {"gpu": gpu}}), made_up=True)


@pytest.mark.parametrize("gpu", ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"])
def test_known_chips_have_a_type_of_the_catalogue(gpu: str) -> None:
    assert device_type(gpu) in device_names()


def test_what_does_not_say_its_commit_or_is_something_else_is_refused(
    made_up: Row, laid: Laid
) -> None:
    with pytest.raises(ResultsError, match="commit"):
        read(laid(made_up | {"machine": made_up["machine"] | {"commit": None}}), made_up=True)
    for other in ({}, [], {"machine": {}, "sections": {}}, made_up | {"sections": []}):
        with pytest.raises(ResultsError, match="no results file"):
            read(laid(other), made_up=True)


def test_calls_faster_than_the_chip_are_named_and_not_used(made_up: Row, laid: Laid) -> None:
    spoilt = json.loads(json.dumps(made_up))
    row = spoilt["sections"]["dense"]["rows"][0]
    work = features(row["work"]["s"])
    row["s"] = 0.9 * float(fastest_possible_s(device_profile("h200"), work))
    # What a choice takes may be the difference of two times.
    spoilt["sections"]["selection"]["rows"][0]["select_s"] = -1e-7
    found = fits(taken(spoilt, laid))
    places = ["dense: ours 2048 64x64 s", "selection: Pooled 2048 select_s"]
    assert [call.place for call in found[0].impossible] == places
    assert found[1].impossible == ()
    known = fits(taken(made_up, laid))[0].refit
    assert found[0].refit.accepted + found[0].refit.rejected_outliers == (
        known.accepted + known.rejected_outliers - 2
    )


def test_rates_are_those_of_blocks_and_pieces_of_64_and_other_sizes_are_only_told(
    made_up: Row, laid: Laid
) -> None:
    found = taken(made_up, laid)
    rates = [fit.refit.rates for fit in fits(found)]
    told = {error.kind: error for error in errors(found, rates)}
    fitted = {kind for kind, error in told.items() if error.fitted}
    assert {"prefill, sparse, 64 x 64", "decode, sparse, pieces of 64"} <= fitted
    others = (
        "prefill, sparse, 64 x 16",
        "prefill, dense, 128 x 128",
        "decode, dense, pieces of 16",
    )
    assert not fitted & set(others)
    assert told[others[0]].median == pytest.approx(0.5, abs=0.05)
    assert told[others[2]].median < 0.05
    # A sample of pieces of 16, twice as slow, would be one.
    without = json.loads(json.dumps(made_up))
    for section in without["sections"].values():
        section["rows"] = [row for row in section["rows"] if row.get("piece", 64) == 64]
    again = [fit.refit.rates.seconds_per for fit in fits(taken(without, laid))]
    assert again == [each.seconds_per for each in rates]


def test_a_time_that_several_rows_repeat_is_one_call(made_up: Row, laid: Laid) -> None:
    twice = json.loads(json.dumps(made_up))
    row = twice["sections"]["dense"]["rows"][0]
    again = {"case": "beside it", "dense_s": row["s"], "work": {"dense_s": row["work"]["s"]}}
    twice["sections"]["uniform_sparse"]["rows"].append(again)
    twice["shared"]["dense"] = row
    assert len(calls(taken(twice, laid))) == len(calls(taken(made_up, laid)))


def test_work_of_a_column_that_is_not_there_is_an_error(made_up: Row, laid: Laid) -> None:
    spoilt = json.loads(json.dumps(made_up))
    del spoilt["sections"]["dense"]["rows"][0]["s"]
    with pytest.raises(ResultsError, match="dense: ours 2048 64x64 s"):
        calls(taken(spoilt, laid))


def test_few_calls_are_no_reason_to_forget_what_is_known(made_up: Row, laid: Laid) -> None:
    few = json.loads(json.dumps(made_up))
    few["sections"] = {name: few["sections"][name] for name in ("dense", "decode")}
    few["sections"]["dense"]["rows"] = few["sections"]["dense"]["rows"][: LEAST_CALLS - 1]
    assert [fit.refit.rates.phase for fit in fits(taken(few, laid))] == ["decode"]


def test_later_files_of_the_same_commit_add_cases_and_a_newer_commit_stands_alone(
    made_up: Row, laid: Laid
) -> None:
    def file(date: str, commit: str, rows: list[Row]) -> object:
        machine = made_up["machine"] | {"date": f"{date}T00:00:00+00:00", "commit": commit}
        sections = {"dense": {"complete": True, "rows": rows}}
        return read(laid(made_up | {"machine": machine, "sections": sections}), made_up=True)

    old = file("2001-01-01", "a" * 40, [{"case": "x", "s": 9.0}, {"case": "z", "s": 9.0}])
    first = file("2001-02-01", "b" * 40, [{"case": "x", "s": 1.0}, {"case": "y", "error": "e"}])
    second = file("2001-02-02", "b" * 40, [{"case": "x", "skipped": "s"}, {"case": "y", "s": 2.0}])
    found = newest([second, old, first])["h200"]  # type: ignore[list-item]
    assert found.sections["dense"]["rows"] == [{"case": "x", "s": 1.0}, {"case": "y", "s": 2.0}]
    assert len(found.files) == 2


def test_the_command_says_whether_it_would_change_anything(
    made_up: Row,
    checkout: Checkout,
    laid: Laid,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def code(*arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["gpu_results", "--into", str(checkout.root), *arguments])
        try:
            command.main()
        except SystemExit as end:
            return end.code
        return 0

    assert code("--check") == 0
    keep(laid(made_up), checkout)
    assert code("--check") == 1
    assert "not what gpu-h200-20010203-040506-0123456.json give" in capsys.readouterr().out
    assert code() == 0
    assert code("--check") == 0
