"""The benchmark's figures on a small file, and what it says of bad ones."""

import json
from pathlib import Path

import pytest

from benchmarks.partition import BadFileError, main, read

GOOD = {"a": {"machines": 2, "jobs": [3, 3, 2, 2, 2], "optimum": 6}}


def run(monkeypatch: pytest.MonkeyPatch, file: Path, *flags: str) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks/partition.py", "--data", str(file), *flags])
    main()


def test_summary_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "in.json", tmp_path / "out.json"
    file.write_text(json.dumps(GOOD))
    run(monkeypatch, file, "--json", str(out))
    assert "found 1  proved 1  near 1" in capsys.readouterr().out
    report = json.loads(out.read_text())
    summary = report["summary"]
    assert {key: summary[key] for key in ("instances", "found", "proved", "near")} == {
        "instances": 1,
        "found": 1,
        "proved": 1,
        "near": 1,
    }
    assert report["rows"][0] | {"seconds": 0, "proof": ""} == {
        "name": "a",
        "machines": 2,
        "jobs": 5,
        "optimum": 6,
        "makespan": 6,
        "lower_bound": 6,
        "proof": "",
        "found": True,
        "proved": True,
        "near": True,
        "seconds": 0,
    }
    run(monkeypatch, file, "--json")
    assert json.loads(capsys.readouterr().out)["summary"]["found"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "object of named instances"),
        ('{"x": 3}', "instance 'x': must be an object"),
        ('{"x": {"machines": 2, "jobs": [1]}}', "instance 'x': optimum missing"),
        ('{"x": {"machines": 0, "jobs": [1], "optimum": 1}}', "instance 'x': machines is 0"),
        ('{"x": {"machines": 1, "jobs": [1.5], "optimum": 1}}', "instance 'x': jobs must be"),
        ('{"x": {"machines": 1, "jobs": [1], "optimum": "1"}}', "instance 'x': optimum is '1'"),
    ],
)
def test_bad_files_are_named_with_their_fault(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "in.json"
    file.write_text(content)
    with pytest.raises(BadFileError, match=message):
        read(file)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--time-limit", "-1"], "--time-limit"),
        (["--json", "/nowhere/out.json"], "no such folder"),
        (["--data", "/nowhere/in.json"], "No such file"),
    ],
)
def test_a_bad_flag_or_file_exits_with_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    (tmp_path / "in.json").write_text(json.dumps(GOOD))
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, tmp_path / "in.json", *flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_answer_that_contradicts_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"a": GOOD["a"] | {"optimum": 5}}))
    with pytest.raises(SystemExit, match="contradicts the file's optimum 5"):
        run(monkeypatch, tmp_path / "in.json")
