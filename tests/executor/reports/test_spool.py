import io
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from api.client.bodies import DeviceSample, MeasurementBatch
from executor.errors import StateError
from executor.reports.spool import Spool


def batch(number: int = 0, generation: int = 1) -> MeasurementBatch:
    samples = [DeviceSample(layer=0, device=0, seconds=0.1 + number, work={"launches": 1})]
    return MeasurementBatch(
        batch_id=str(uuid4()),
        deployment="prod",
        plan_id="p",
        generation=generation,
        node_id="n",
        timing="alone",
        samples=samples,
    )


def drain(spool: Spool) -> list[MeasurementBatch]:
    found = []
    while (oldest := spool.oldest()) is not None:
        found.append(oldest[1].batch)
        spool.remove(oldest[0])
    return found


def test_first_in_first_out_across_restarts(tmp_path: Path) -> None:
    batches = [batch(number) for number in range(12)]
    for number, each in enumerate(batches, start=1):
        Spool(tmp_path).add(each, number)
    spool = Spool(tmp_path)
    assert len(spool) == 12
    assert drain(spool) == batches
    assert len(spool) == 0
    assert not list(tmp_path.iterdir())


def test_the_oldest_goes_when_it_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool, batches = Spool(tmp_path, limit=3), [batch(number) for number in range(5)]
    for number, each in enumerate(batches, start=1):
        spool.add(each, number)
    assert drain(spool) == batches[2:]
    assert capsys.readouterr().out.count("spool full, oldest batch dropped") == 2


def test_rounds_waiting_by_generation(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.add(batch(generation=1), 4)
    spool.add(batch(generation=2), 1)
    spool.add(batch(generation=2), 2)
    assert spool.rounds(batch(generation=2).key) == 2
    assert spool.rounds(batch(generation=3).key) == 0


def test_adding_opens_as_many_files_whatever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, really = [], io.open

    def counted(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments[0])
        return really(*arguments, **options)

    monkeypatch.setattr(io, "open", counted)

    def add(spool: Spool) -> int:
        """A batch after all that wait; how many files that opens."""
        before, each = len(opened), batch()
        spool.add(each, spool.rounds(each.key) + 1)
        return len(opened) - before

    spool = Spool(tmp_path)
    first, *others = [add(spool) for _ in range(20)]
    assert first > 0
    assert set(others) == {first}
    spool = Spool(tmp_path)
    assert spool.rounds(batch().key) == 20
    assert add(spool) == first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"round": 1}'])
def test_corrupt_files_are_set_aside_and_passed_over(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = batch()
    Spool(tmp_path).add(batch(), 1)
    Spool(tmp_path).add(good, 2)
    (first, _) = sorted(tmp_path.glob("*.json"))
    first.write_text(text)
    spool = Spool(tmp_path)
    assert spool.rounds(good.key) == 2
    assert drain(spool) == [good]
    assert len(spool) == 0
    assert (tmp_path / f"{first.name}.corrupt").exists()
    assert capsys.readouterr().out.count("corrupt file set aside") == 1


def test_a_batch_half_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "000000000001.jsonab.tmp").write_text("half")
    assert len(Spool(tmp_path)) == 0
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_spool(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    with pytest.raises(StateError, match="no usable spool"):
        Spool(tmp_path / "spool")
