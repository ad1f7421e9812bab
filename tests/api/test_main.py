"""The `hplb` command gathers its parts, and leaves out those that need torch where it is absent."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api import main
from profiles.catalogue import catalogue_profile
from profiles.errors import HplbError


class Part:
    """Stands for an entry point."""

    def __init__(self, name: str, load: Callable[[], typer.Typer]) -> None:
        self.name = name
        self.load = load


def _app(command: str, body: Callable[[], None]) -> typer.Typer:
    app = typer.Typer()
    app.command(command)(body)
    return app


def _missing(module: str) -> Callable[[], typer.Typer]:
    def load() -> typer.Typer:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    return load


def _says(text: str) -> Callable[[], None]:
    def command() -> None:
        typer.echo(text)

    return command


def _install(monkeypatch: pytest.MonkeyPatch, *parts: Part) -> None:
    def found(group: str) -> list[Any]:
        assert group == "hplb.commands"
        return list(parts)

    monkeypatch.setattr(main, "entry_points", found)


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["hplb", *arguments])
    with pytest.raises(SystemExit) as caught:
        main.run()
    return int(str(caught.value.code))


def test_the_parts_of_this_repository_are_all_there() -> None:
    names = {entry.name for entry in entry_points(group=main.GROUP)}
    assert names == {"profiles", "solver", "executor", "evaluation", "api"}
    shown = CliRunner().invoke(main.gather(), ["--help"]).output
    for command in ("plan", "serve", "profiles"):
        assert command in shown


def test_commands_and_groups_are_mounted_at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    group = typer.Typer()
    group.add_typer(_app("inner", _says("inner speaks")), name="group")
    group.command("outer")(_says("outer speaks"))
    _install(monkeypatch, Part("one", lambda: group), Part("two", _missing("torch")))
    app = main.gather()
    assert "outer speaks" in CliRunner().invoke(app, ["outer"]).output


@pytest.mark.parametrize("module", ["torch", "torch.nn", "triton"])
def test_a_part_without_torch_is_left_out(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    parts = [Part("a", _missing(module)), Part("b", lambda: _app("b", _says("b")))]
    _install(monkeypatch, *parts)
    assert [c.name for c in main.gather().registered_commands] == ["b"]


def test_any_other_missing_module_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, Part("a", _missing("torchlight")))
    with pytest.raises(ModuleNotFoundError, match="torchlight"):
        main.gather()


def test_bad_input_is_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise HplbError("heads:\n  not that many")

    _install(monkeypatch, Part("a", lambda: _two(fails)))
    assert _run(monkeypatch, "go") == 2
    assert capsys.readouterr().err == "error: heads: not that many\n"


def test_ctrl_c_is_130_and_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    _install(monkeypatch, Part("a", lambda: _two(interrupted)))
    assert _run(monkeypatch, "go") == 130
    assert capsys.readouterr().err.strip() == ""


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _install(monkeypatch, Part("a", lambda: _two(_says("x"))))
    assert _run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("hplb 0.")


def _two(command: Callable[[], None]) -> typer.Typer:
    app = _app("go", command)
    app.command("other")(_says("other"))
    return app


def _hplb(*arguments: object, stdout: Any = subprocess.PIPE, **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "api.main", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


@pytest.mark.parametrize(
    "arguments", [["--version"], ["profiles", "list"], ["profiles", "list", "--json"]]
)
def test_a_full_device_is_named_in_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = _hplb(*arguments, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr == "error: /dev/full: cannot be written: No space left on device\n"


def test_what_the_output_cannot_say_is_replaced(tmp_path: Path) -> None:
    profile = tmp_path / "mine.json"
    said = catalogue_profile("llama-3.1-8b-synthetic").model_copy(
        update={"source": "m\u00e9asured"}
    )
    said.save(profile)
    ended = _hplb("profiles", "show", profile, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "source: m?asured" in ended.stdout
    assert "source: m\u00e9asured" in _hplb("profiles", "show", profile).stdout


def test_an_output_that_was_closed_is_none() -> None:
    command = f"{sys.executable} -m api.main --version >&-"
    ended = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
