"""The simulated schedule: its makespans by hand and by force, and the benchmark's output."""

import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import dispatch
from benchmarks.schedule import main
from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks
from tests.profiles.published import HEADS

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def best(costs: list[int], programs: int) -> int:
    """The least makespan over all assignments."""
    found = sum(costs)
    for places in product(range(programs), repeat=len(costs)):
        loads = [0] * programs
        for cost, place in zip(costs, places, strict=True):
            loads[place] += cost
        found = min(found, max(loads))
    return found


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 3))
def test_no_schedule_beats_what_is_unavoidable(costs: list[int], programs: int) -> None:
    least = best(costs, programs)
    assert max(sum(costs) / programs, *costs) <= dispatch.unavoidable(costs, programs) <= least
    assert least <= dispatch.dispatched(sorted(costs, reverse=True), programs)
    assert dispatch.dispatched(sorted(costs, reverse=True), programs) <= least * 4 / 3
    assert least <= dispatch.strided(costs, programs)


def test_orders_by_hand() -> None:
    """Lists of 1, 2, 3 and 4 blocks cost 3, 4, 5 and 6: 18 for two programs."""
    layout = lay_out([HeadBlocks(0, 0, 9, 0, 4)], [Chunk(0, 64)], 16)
    assert layout.length.tolist() == [1, 2, 3, 4]
    over = dispatch.prefill(layout, layout, programs=2)
    assert over == {
        "grid": 10 / 9,  # 3 and 5, 4 and 6
        "reversed": 1.0,
        "strided": 10 / 9,
        "longest": 1.0,
        "no order": 1.0,
        "mean: longest": 1.0,
        "mean: cut": 1.0,
    }


def test_cut_lists_cost_every_part_its_overhead() -> None:
    """One list of 64 blocks on 2 programs: 66 whole, two parts of 32 cost 34 each."""
    heads, chunk = [HeadBlocks(0, 0, 64, 63, 64)], [Chunk(0, 1024)]
    over = dispatch.prefill(lay_out(heads, chunk, 16), lay_out(heads, chunk, 16, programs=2), 2)
    assert (over["mean: longest"], over["mean: cut"]) == (2.0, 34 / 33)
    assert over["longest"] == 1.0


@given(COUNTS, st.integers(1, 20))
def test_chunks_are_all_blocks_near_equally(counts: list[int], programs: int) -> None:
    sizes = dispatch.chunks(counts, programs)
    most = max(1, -(-sum(counts) // programs))
    assert sum(sizes) == sum(counts)
    assert all(0 < size <= most for size in sizes)
    assert len(sizes) == sum(-(-count // most) for count in counts)


@given(COUNTS, st.integers(1, 20))
def test_stretches_touch_the_lists_they_lie_in(counts: list[int], programs: int) -> None:
    owner = [number for number, count in enumerate(counts) for _ in range(count)]
    share, longer = divmod(len(owner), programs)
    found, at = [], 0
    for program in range(programs):
        size = share + (program < longer)
        found += [len(set(owner[at : at + size]))] if size else []
        at += size
    assert dispatch.stretches(counts, programs) == found


def test_table_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not HEADS.exists():
        pytest.skip(f"{HEADS} is not on this machine")
    out = tmp_path / "out.json"
    arguments = ["--data", str(HEADS), "--profiles", "moa-gradientai", "--contexts", "4096"]
    arguments += ["--layers", "1", "--time-limit", "0.2", "--json", str(out)]
    monkeypatch.setattr("sys.argv", ["benchmarks/schedule.py", *arguments])
    main()
    printed = capsys.readouterr().out
    assert printed.count("SIMULATED") == 2
    assert "PASS: longest first" in printed or "FAIL: longest first" in printed
    report = json.loads(out.read_text())
    assert "SIMULATION" in report["note"]
    prefill = [row for row in report["rows"] if row["phase"] == "prefill"]
    assert [(row["plan"], row["programs"], row["shares"]) for row in prefill[:4]] == [
        ("one GPU", 132, 1),
        ("one GPU", 264, 1),
        ("contiguous", 132, 8),
        ("contiguous", 264, 8),
    ]
    assert report["aim"]["of"] == sum(row["shares"] for row in prefill)
    for row in prefill:
        assert 1 <= row["over"]["no order"]["worst"] <= row["over"]["longest"]["worst"]
    assert {row["batch"] for row in report["rows"] if row["phase"] == "decode"} == {1, 16}


def test_a_profile_nobody_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks/schedule.py", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
