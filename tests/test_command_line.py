"""`hplb` as people use it: one style of flags, examples that run, JSON for programs, completion."""

import os
import pty
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from api.main import gather
from profiles.catalogue import catalogue_names
from tests.test_examples import check_hplb

UNTIL_STOPPED = {"serve", "executor"}
"""They run until they are stopped, and print nothing for a program."""
BEFORE = {"--device-type": "--type", "--methods": "--policy", "--densities": "--density"}
"""Names of before that stand in the README, or in commands that results were measured by."""
APART = {"--devices": {"plan"}, "--gpus": {"compare"}}
"""A plan's devices may be told one by one, elsewhere they are counted; counts may be compared."""


def every(command: Any = None, before: str = "hplb") -> Iterator[tuple[str, Any]]:
    """All commands and groups, with what is typed for them."""
    command = command or typer.main.get_command(gather())
    yield before, command
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from every(inner, f"{before} {name}")


TYPED = dict(every())


def options(command: Any) -> Iterator[Any]:
    return (each for each in command.params if each.opts[0].startswith("-"))


def kind_of(option: Any) -> str:
    """Of its value, whether or not it must be given."""
    kinds = {str(each) for each in get_args(option.type_descriptor.annotation)}
    return " ".join(sorted(kinds - {str(type(None))})) or str(option.type_descriptor.annotation)


def example(command: Any) -> list[str]:
    """The words of a help's example, which ends it."""
    (_, found) = (command.help or "").split("Example: ")
    return shlex.split(found)


@pytest.mark.parametrize("typed", sorted(TYPED))
def test_every_help_ends_with_an_example_that_is_understood(typed: str) -> None:
    words = example(TYPED[typed])
    assert words[0] == "hplb"
    if not isinstance(TYPED[typed], TyperGroup):
        assert words[: len(typed.split())] == typed.split()
    check_hplb(words[1:], "")
    shown = CliRunner().invoke(gather(), [*shlex.split(typed)[1:], "--help"])
    assert shown.exit_code == 0
    assert "Example: hplb" in " ".join(shown.output.split())


@pytest.mark.parametrize("typed", sorted(TYPED))
def test_what_is_printed_for_people_is_printed_for_programs(typed: str) -> None:
    command = TYPED[typed]
    if isinstance(command, TyperGroup) or typed.removeprefix("hplb ") in UNTIL_STOPPED:
        return
    (found,) = [each for each in options(command) if "--json" in each.opts]
    assert found.is_flag
    assert not found.default


def test_a_flag_is_one_thing_everywhere() -> None:
    """The same short letter and the same kind of value; nothing has two names."""
    kinds: dict[str, dict[str, Any]] = defaultdict(dict)
    for typed, command in TYPED.items():
        for option in options(command):
            long = {name for name in option.opts if name.startswith("--")}
            name = option.opts[0]
            assert long in ({name}, {name, BEFORE.get(name)}), (typed, option.opts)
            short = {each for each in option.opts if not each.startswith("--")}
            kinds[name][typed] = (frozenset(short), kind_of(option))
    for name, found in kinds.items():
        apart = APART.get(name, set())
        rest = {kind for typed, kind in found.items() if typed.removeprefix("hplb ") not in apart}
        assert len(rest) <= 1, (name, found)


def test_what_takes_several_is_in_the_plural_and_takes_commas() -> None:
    for typed, command in TYPED.items():
        for option in options(command):
            # `--policy` came again for every method.
            assert not option.multiple or "--policy" in option.opts, (typed, option.opts)
            if "comma-separated" in (option.help or "").lower():
                assert option.opts[0].endswith("s"), (typed, option.opts)


def test_flags_say_their_unit_as_the_request_does() -> None:
    """Of context and time the command says the unit in its help, of anything else in its name."""
    for typed, command in TYPED.items():
        for option in options(command):
            name, told = max(option.opts, key=len), option.help or ""
            if name in ("--context", "--contexts"):
                assert re.search("[Tt]okens|lengths", told), (typed, told)
            if name == "--time-limit":
                assert "Seconds" in told, (typed, told)
            if told.startswith(("First", "Last")):
                assert name.endswith("-tokens"), (typed, name)


BASH = """
eval "$(hplb --show-completion)"
while read -r -a COMP_WORDS
do
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _hplb_completion hplb
    echo "${COMPREPLY[@]}"
done
"""
OFFERED = {
    "hplb pro": ["profiles"],
    "hplb keys r": ["revoke", "rotate"],
    "hplb verify plan.json --str": ["--strict"],
    "hplb plan --profile l": [n for n in catalogue_names() if n.startswith("l")],
    "hplb plan --method gre": ["greedy", "greedy_equal"],
    "hplb plan --device-type h2": ["h200"],
    "hplb models get s": ["smollm2-135m"],
}


@pytest.mark.parametrize("words", OFFERED)
def test_commands_flags_and_names_are_completed(words: str) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    environment = {"_HPLB_COMPLETE": "complete_bash", **asked}
    offered = CliRunner().invoke(gather(), [], prog_name="hplb", env=environment).output
    assert sorted(offered.split()) == OFFERED[words]


@pytest.mark.slow
def test_bash_completes_what_is_offered() -> None:
    offered = {words: OFFERED[words] for words in ("hplb pro", "hplb plan --profile l")}
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", BASH],
        input="".join(f"{words}\n" for words in offered),
        env={**os.environ, "PATH": beside},
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = [sorted(line.split()) for line in done.stdout.splitlines()]
    assert dict(zip(offered, found, strict=True)) == offered, done.stderr


@pytest.mark.slow
def test_completion_is_installed_where_bash_reads_it(tmp_path: Path) -> None:
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    home = {**os.environ, "PATH": beside, "HOME": str(tmp_path)}
    install = "hplb --install-completion; exit $?"
    subprocess.run(["bash", "-c", install], env=home, check=True, timeout=120)
    asked = "source ~/.bashrc; complete -p hplb"
    told = subprocess.run(["bash", "-c", asked], env=home, capture_output=True, text=True)
    assert "_hplb_completion" in told.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["settings"]])
def test_nothing_goes_through_a_pager(arguments: list[str]) -> None:
    """On a terminal that is far too small for it."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "LINES": "5", "PAGER": "false", "MANPAGER": "false"}
    command = [sys.executable, "-m", "api.main", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        said = b""
        # Reading fails at the end of a terminal whose other side is closed.
        with suppress(OSError):
            while read := os.read(ours, 65536):
                said += read
    os.close(ours)
    assert running.returncode == 0
    assert len(said.splitlines()) > 20
