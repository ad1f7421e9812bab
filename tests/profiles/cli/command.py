"""`hplb profiles`, run in this process."""

from typer.testing import CliRunner, Result

from profiles.cli import app


def hplb(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in ("profiles", *arguments)])


def refused(result: Result) -> str:
    """The one line that a refused command leaves on stderr."""
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr
