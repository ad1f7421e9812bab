import pytest
import typer
from typer.testing import CliRunner

from profiles.cli.console import clear_errors, console
from profiles.errors import ProfileError

app = typer.Typer()


@app.command()
@clear_errors()
def run(count: int) -> None:
    if count < 0:
        raise ProfileError("count:\n  must be [positive]")
    if count == 0:
        raise ZeroDivisionError
    console.print(f"counted {count}")


def test_results_go_to_stdout_and_arguments_survive_the_decorator() -> None:
    result = CliRunner().invoke(app, ["3"])
    assert (result.exit_code, result.stdout) == (0, "counted 3\n")


def test_bad_input_is_one_line_on_stderr_and_code_2() -> None:
    result = CliRunner().invoke(app, ["--", "-1"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: count: must be [positive]\n"


def test_a_bug_is_not_dressed_up_as_bad_input() -> None:
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(app, ["0"], catch_exceptions=False)
