"""How a GPU run goes around what fails: real processes, sections that crash and hang."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.aims import AIMS, ceiling
from benchmarks.gpu.check_units import POINTERS, PREFILL, SETTINGS, tma_trouble, units
from benchmarks.gpu.rows import document
from benchmarks.gpu.section import Section
from benchmarks.gpu.suite import SECTIONS, expanded
from benchmarks.gpu.summary import exit_code, summary

ROOT = Path(__file__).parents[2]
FIRST = f"check-{SETTINGS[0]}"


def command(folder: Path, deeds: dict[str, dict[str, str]], *arguments: object) -> list[str]:
    (folder / "deeds.json").write_text(json.dumps(deeds))
    found = [sys.executable, "-m", "tests.executor.fake_gpu_run", folder]
    return [*map(str, found), "--json", str(folder / "found.json"), *map(str, arguments)]


def run(folder: Path, deeds: dict[str, dict[str, str]], *arguments: object):
    """Exit code, results and what was printed."""
    finished = subprocess.run(
        command(folder, deeds, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert finished.returncode in (0, 1, 3), finished.stderr
    return finished.returncode, json.loads((folder / "found.json").read_text()), finished.stdout


def outcomes(found: dict, section: str) -> dict[str, str]:
    """What became of every case of a section."""
    return {
        row["case"]: next((key for key in ("error", "out_of_time", "skipped") if key in row), "row")
        for row in found["sections"][section]["rows"]
    }


@pytest.mark.slow
def test_a_crash_a_hang_and_a_broken_device_cost_one_case_each(tmp_path):
    deeds = {
        "check-one": {"right": "fine", "nonsense": "wrong"},
        "dense": {"before": "fine", "killed": "crash", "hangs": "hang", "after": "fine"},
        "headline": {"breaks": "broken", "raises": "error", "last": "fine"},
    }
    code, found, said = run(tmp_path, deeds, "--seconds", 200)
    assert code == 1
    assert outcomes(found, "dense") == {
        "before": "row",
        "killed": "error",
        "hangs": "out_of_time",
        "after": "row",
    }
    assert outcomes(found, "headline") == {"breaks": "error", "raises": "error", "last": "row"}
    assert {s["ended"] for s in found["sections"].values()} == {"finished"}
    assert "checks: 1 fine, 1 failed, 0 out of time" in said
    assert "dense: 2 fine, 1 failed, 1 out of time; errors in ['killed']" in said
    begun = (tmp_path / "done.txt").read_text().split()
    assert sorted(begun) == sorted(case for cases in deeds.values() for case in cases)


@pytest.mark.slow
def test_a_section_whose_processes_die_again_and_again_is_left(tmp_path):
    deeds = {
        "check-one": {"right": "fine", "hangs": "hang"},
        "dense": {"a": "crash", "b": "crash", "c": "crash", "d": "fine"},
        "headline": {"e": "fine"},
    }
    code, found, said = run(tmp_path, deeds, "--seconds", 200)
    # Nothing that was checked is wrong, but not everything was checked.
    assert code == 3
    assert outcomes(found, "check-one") == {"right": "row", "hangs": "out_of_time"}
    assert outcomes(found, "dense") == dict.fromkeys("abc", "error")
    assert found["sections"]["dense"]["ended"] == "failed"
    assert outcomes(found, "headline") == {"e": "row"}
    assert "checks: 1 fine, 0 failed, 1 out of time" in said
    assert "failed: dense" in said


@pytest.mark.slow
def test_where_only_tensor_descriptors_fail_everything_goes_on_without(tmp_path):
    name = SETTINGS[0]
    deeds = {
        f"{FIRST}-{PREFILL}": {
            f"{name} prefill contiguous": "fine",
            f"{name} prefill paged": "crash",
        },
        f"{FIRST}-{POINTERS}": {
            f"{name} prefill contiguous by pointers": "fine",
            f"{name} prefill paged by pointers": "fine",
        },
        "ceilings": {"copy": "fine"},
    }
    code, found, said = run(tmp_path, deeds, "--seconds", 200)
    assert code == 1
    assert not found["tma"]["used"]
    assert "prefill paged" in found["tma"]["why"]
    assert "going on without tensor descriptors: prefill paged" in said
    assert found["sections"]["ceilings"]["rows"][0]["tma"] == "0"
    # The checks themselves were made with them.
    assert found["sections"][f"{FIRST}-{PREFILL}"]["rows"][0]["tma"] is None


@pytest.mark.slow
def test_what_an_earlier_run_has_is_not_run_again(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    deeds = {
        "check-one": {"right": "fine"},
        "check-two": {"well": "fine", "nonsense": "wrong"},
        "ceilings": {"copy": "fine"},
        "dense": {"a": "fine", "b": "error", "peer": "missing"},
    }
    run(first, deeds, "--seconds", 200, "--commit", "c0ffee")
    earlier = first / "found.json"

    later = deeds | {"headline": {"new": "fine"}}
    later["check-two"] = {"well": "fine", "nonsense": "fine"}
    later["dense"] = {"a": "fine", "b": "fine", "c": "fine", "peer": "fine"}
    arguments = ("--seconds", 200, "--sections", "dense,headline", "--earlier", earlier)
    code, found, said = run(second, later, *arguments, "--commit", "c0ffee")
    assert code == 0
    assert sorted((second / "done.txt").read_text().split()) == [
        "b",
        "c",
        "new",
        "nonsense",
        "peer",
    ]
    marked = {
        row["case"]: row.get("earlier") for s in found["sections"].values() for row in s["rows"]
    }
    old = dict.fromkeys(("right", "well", "copy", "a"), "found.json")
    assert marked == old | dict.fromkeys(("nonsense", "b", "c", "new", "peer"))
    assert {s["ended"] for s in found["sections"].values()} == {"finished"}
    assert "from earlier runs" in said

    (second / "done.txt").unlink()
    code, found, said = run(second, later, *arguments, "--commit", "decaf", "--no-check")
    assert f"{earlier}: nothing is taken from it: it is of commit c0ffee" in said
    assert sorted((second / "done.txt").read_text().split()) == ["a", "b", "c", "new", "peer"]
    assert set(found["sections"]) == {"dense", "headline"}


@pytest.mark.slow
def test_a_run_that_is_asked_for_its_end_leaves_a_whole_file_and_says_what_it_found(tmp_path):
    deeds = {"dense": {"a": "fine", "b": "last"}, "headline": {"c": "fine"}}
    told = command(tmp_path, deeds, "--seconds", 200, "--no-check")
    process = subprocess.Popen(
        told, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    begun = tmp_path / "done.txt"
    until = time.monotonic() + 200
    while not begun.exists() or "b" not in begun.read_text():
        assert time.monotonic() < until
        time.sleep(0.1)
    # As `timeout` does: to the run, then to all of its processes, the run among them.
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert outcomes(found, "dense") == {"a": "row", "b": "out_of_time"}
    assert found["sections"]["dense"]["ended"] == "out of time"
    assert found["sections"]["headline"]["ended"] == "not run"
    assert "dense: 1 fine, 0 failed, 1 out of time; out of time: dense" in said
    assert "not run: headline" in said
    assert "| aim | met | found |" in said


@pytest.mark.slow
def test_a_sanitizer_that_hangs_is_ended_and_told_from_one_that_found_something(tmp_path):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text('#!/bin/sh\n[ "$2" = memcheck ] && exit 9\nsleep 1000\n')
    tool.chmod(0o755)
    finished = subprocess.run(
        ["benchmarks/gpu/run_all.sh", "sanitize", "--seconds", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert finished.returncode == 1, finished.stderr
    assert "memcheck: found something (exit code 9)" in finished.stdout
    assert "racecheck: did not finish, nothing found until then" in finished.stdout


def made(folder: Path, seconds: float = 100.0) -> Section:
    until = time.time() + seconds
    return Section("dense", folder, tiny=True, until=until, ends=until)


def test_a_failing_case_is_a_row_and_the_next_one_runs(tmp_path):
    section = made(tmp_path)

    def broken():
        raise ValueError("no such kernel")

    assert section.attempt("first", broken) is None
    assert section.attempt("second", lambda: {"s": 1.0}) == {"case": "second", "s": 1.0}
    section.finish()
    found = document(tmp_path, "dense")
    assert found["complete"]
    assert found["rows"][0]["error"] == "no such kernel"
    assert "broken" in found["rows"][0]["trace"]
    assert found["rows"][1] == {"case": "second", "s": 1.0}


def test_nothing_is_begun_when_the_time_is_up(tmp_path):
    section = made(tmp_path, seconds=0.0)
    assert section.attempt("late", lambda: pytest.fail("begun")) is None
    assert section.rows == [{"case": "late", "skipped": "no time left"}]


def test_a_second_process_goes_on_behind_the_rows_of_the_first(tmp_path):
    made(tmp_path).attempt("first", lambda: {"s": 1.0})
    # It was ended while it wrote.
    with (tmp_path / "dense.rows").open("a") as file:
        file.write('\n{"case": "second", "s"')
    again = made(tmp_path)
    assert again.attempt("first", lambda: pytest.fail("begun"))["s"] == 1.0
    assert again.attempt("second", lambda: {"s": 2.0})
    assert [row["case"] for row in again.rows] == ["first", "second"]


def test_what_sections_share_is_measured_once(tmp_path):
    assert made(tmp_path).shared("dense of 32", lambda: {"s": 1.0}) == {"s": 1.0}
    assert made(tmp_path).shared("dense of 32", lambda: pytest.fail("begun")) == {"s": 1.0}
    assert made(tmp_path).shared("dense of 64", lambda: {"s": 2.0}) == {"s": 2.0}


def section(ended: str, *rows: dict[str, object]) -> dict[str, object]:
    return {"ended": ended, "complete": ended == "finished", "rows": list(rows)}


FINE = {"case": "a", "ok": True}


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ([section("finished", FINE)], 0),
        ([section("finished", FINE, {"case": "b", "ok": False})], 1),
        ([section("finished", FINE, {"case": "b", "error": "no such kernel"})], 1),
        ([section("not run"), section("finished", {"case": "b", "ok": False})], 1),
        ([section("finished", FINE, {"case": "b", "skipped": "no time left"})], 3),
        ([section("out of time", FINE, {"case": "b", "out_of_time": "took too long"})], 3),
        ([section("finished", FINE), section("not run")], 3),
        ([], 0),
    ],
)
def test_the_exit_code_tells_wrong_from_unfinished(checks, code):
    sections = {f"check-{number}": each for number, each in enumerate(checks)}
    # What is measured does not count.
    sections["dense"] = section("failed", {"case": "c", "error": "e"})
    assert exit_code(sections) == code


def test_the_summary_tells_failed_out_of_time_and_not_run_apart():
    sections = {
        "check-a": section("out of time", FINE, {"case": "b", "out_of_time": "took too long"}),
        "check-b": section("not run"),
        "check-c": section("finished", FINE, {"case": "wrong one", "ok": False}),
    }
    said = summary(sections, tiny=True)
    assert "checks: 2 fine, 1 failed, 1 out of time; out of time: check-a; not run: check-b" in said
    assert "    wrong one: {'ok': False}" in said


def twins(prefill: list[dict[str, object]], pointers: list[dict[str, object]]):
    return {
        f"{FIRST}-{part}": {
            "rows": [{**row, "case": f"{SETTINGS[0]} {row['case']}"} for row in rows]
        }
        for part, rows in ((PREFILL, prefill), (POINTERS, pointers))
    }


def test_tensor_descriptors_are_given_up_only_where_pointers_work_instead():
    right, wrong = ({"case": "prefill paged", "ok": ok} for ok in (True, False))
    by_pointers = {"case": "prefill paged by pointers", "ok": True}
    assert tma_trouble(twins([right], [by_pointers])) is None
    assert "prefill paged" in tma_trouble(twins([wrong], [by_pointers]))
    assert "did not come back" in tma_trouble(twins([], [by_pointers]))
    late = {"case": "prefill paged", "out_of_time": "took too long"}
    assert "took too long" in tma_trouble(twins([late], [by_pointers]))
    assert tma_trouble(twins([wrong], [by_pointers | {"ok": False}])) is None
    assert tma_trouble(twins([wrong], [])) is None
    never_began = twins([wrong], [by_pointers])
    never_began[f"{FIRST}-{PREFILL}"]["rows"] = [{"case": "section", "error": "exit code -11"}]
    assert "did not come back" in tma_trouble(never_began)
    assert tma_trouble({}) is None


def test_checks_are_of_served_types_and_begin_with_the_most_valuable():
    names = units(tiny=False)
    assert names[:4] == [*(f"{FIRST}-{part}" for part in (PREFILL, POINTERS, "rest")), names[3]]
    assert FIRST == "check-bf16-d128-64x64"
    assert names[3:5] == ["check-bf16-d128-64x16", "check-bf16-d128-128x128"]
    assert not [name for name in names if "fp32" in name]


def test_peers_come_last_whatever_is_asked_for():
    assert expanded(["head_budgets", "selection", "dense"]) == [
        "ceilings",
        "dense",
        "selection",
        "head_budgets",
        "head_budgets-peers",
        "dense-peers",
    ]
    order = list(SECTIONS)
    peers = [name for name in order if name.endswith("-peers")]
    assert order[-len(peers) :] == peers


def test_an_aim_is_a_share_of_what_the_same_gpu_reaches():
    dense = next(aim for aim in AIMS if aim.section == "dense")
    row = {"case": "ours", "tokens": 8192, "block": 64, "piece": 64, "tflops": 300.0}
    gathered = row | {"piece": 16, "tflops": 100.0}
    product = {"case": "matrix product", "tflops": 400.0}
    measured = {"dense": {"rows": [row, gathered]}, "ceilings": {"rows": [product]}}
    assert ceiling(measured, "copy") is None
    assert dense.verdict(measured).worst == 0.75
    assert dense.verdict(measured).met == 1
    product["tflops"] = 800.0
    assert dense.verdict(measured).met == 0
    assert dense.verdict({"dense": {"rows": [row]}}) is None
