"""What README and docs show works: Python runs, commands have these flags, links lead somewhere.

Commands are parsed by the real parsers and not run; requests are held against the service's schema.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from jsonschema_rs import validator_for
from typer.core import TyperGroup

from api.app import create_app
from api.main import gather

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
GIVEN = {"costs": np.random.default_rng(0).lognormal(size=(4, 32))}
"""What a snippet says that its reader has: costs [layers, heads]."""
CURL_WITH_VALUE = {"-X", "-H", "-d", "-o", "-w", "--json"}
CURL_ALONE = set("sSiNfL")
ENDS = {"|", "||", "&&", "&", ";", "(", ")"}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of every fenced block."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S):
        yield found[1], found[2]


SERVED = ("docs/http.md", "docs/tutorial.md")
"""Their examples need a planner: tests/api/client/test_wire.py and tests/page/test_tutorial.py run
them beside one."""


def python_blocks() -> Iterator[Any]:
    for page, name in zip(PAGES, NAMES, strict=True):
        if name in SERVED:
            continue
        texts = [text for language, text in blocks(page) if language == "python"]
        for number, text in enumerate(texts, 1):
            yield pytest.param(text, id=f"{name}-{number}")


@pytest.mark.slow
@pytest.mark.parametrize("text", list(python_blocks()))
def test_python_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "snippet", "exec"), dict(GIVEN))


def commands(text: str) -> Iterator[tuple[list[str], str]]:
    """The words of every simple command after a `$ `, and what is handed to it by `<<`."""
    lines = iter(text.splitlines())
    for line in lines:
        if not line.startswith("$ "):
            continue
        typed = line[2:]
        while (words := split(typed)) is None or typed.endswith(("\\", "|")):
            typed = f"{typed.removesuffix(chr(92))}\n{next(lines)}"
        document = ""
        if "<<" in words:
            end = words[words.index("<<") + 1]
            document = "\n".join(iter(lines.__next__, end))
            words = words[: words.index("<<")]
        yield from ((simple, document) for simple in simples(words))


def check(text: str) -> None:
    """All commands of a block; raises what a parser has against one."""
    for words, document in commands(text):
        CHECKS[words[0]](words[1:], document)


def split(typed: str) -> list[str] | None:
    """Words as a shell has them; None where a quotation goes on in the next line."""
    lexer = shlex.shlex(typed, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        return None


def simples(words: Sequence[str]) -> Iterator[list[str]]:
    """Simple commands of a line, without variables that are set before them; used ones are set."""
    simple: list[str] = []
    for word in [*words, ";"]:
        if word not in ENDS:
            simple.append(re.sub(r"\$\w+", "variable", word))
            continue
        while simple and re.match(r"\w+=", simple[0]):
            simple.pop(0)
        if simple:
            yield simple
        simple = []


@pytest.mark.parametrize("name", NAMES)
def test_commands_that_are_shown_exist(name: str) -> None:
    for _, text in blocks(ROOT / name):
        check(text)


@pytest.mark.parametrize("name", NAMES)
def test_commands_named_in_the_text_exist(name: str) -> None:
    """Those between backticks, which may leave out what a command must be given."""
    prose = re.sub(r"^```.*?^```$", "", (ROOT / name).read_text(), flags=re.M | re.S)
    for found in re.findall(r"`((?:\.venv/bin/)?(?:hplb|make|python|pytest|curl) [^`]+)`", prose):
        words = [word for word in shlex.split(found) if word not in ENDS]
        first = words[0].removeprefix(".venv/bin/")
        if first == "hplb":
            assert flags(words[1:]) <= flags_of(words[1:]), found
        else:
            CHECKS[first](words[1:], "")


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def hplb() -> Any:
    return typer.main.get_command(gather())


def check_hplb(words: Sequence[str], _: str) -> None:
    """Parse as `hplb` would; what is wrong with the words is raised."""
    command, name, context, rest = hplb(), "hplb", None, list(words)
    while True:
        context = command.make_context(name, rest, parent=context)
        if not isinstance(command, TyperGroup):
            return
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )


def flags(words: Sequence[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"-", word)}


def flags_of(words: Sequence[str]) -> set[str]:
    """All flags of the command that the words begin with."""
    command = hplb()
    for word in words:
        if not isinstance(command, TyperGroup) or word.startswith("-"):
            break
        assert word in command.commands, word
        command = command.commands[word]
    return {flag for parameter in command.params for flag in parameter.opts}


def check_make(words: Sequence[str], _: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        variable, given, value = word.partition("=")
        if not given:
            assert re.search(rf"^{word}:", makefile, re.M), word
            continue
        assert f"$({variable})" in makefile, word
        if variable == "RUN_FLAGS":
            check_hplb(["demo", *shlex.split(value)], "")


def check_python(words: Sequence[str], _: str) -> None:
    """A module or a script of the repository that has these flags, itself or by what it imports."""
    if words[0] == "-c":
        compile(words[1], "command", "exec")
        return
    path, rest = ROOT / words[0], words[1:]
    if words[0] == "-m":
        path, rest = ROOT / words[1].replace(".", "/"), words[2:]
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text()
    for module, names in re.findall(r"^from ([\w.]+) import (.*)$", text, re.M):
        places = [module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))]
        files = (ROOT / f"{place.replace('.', '/')}.py" for place in places)
        text += "".join(file.read_text() for file in files if file.exists())
    for flag in flags(rest):
        assert f'"{flag}"' in text, (words, flag)


def check_pytest(words: Sequence[str], _: str) -> None:
    for word in words:
        assert list(ROOT.glob(word)), word


def check_curl(words: Sequence[str], document: str) -> None:
    """A route of the service takes the method, the path and the body."""
    method, body, path = "GET", None, ""
    rest = iter(words)
    for word in rest:
        if word in CURL_WITH_VALUE:
            value = next(rest)
            if word == "-X":
                method = value
            elif word in ("--json", "-d"):
                body = document if value == "@-" else value
                method = "POST" if method == "GET" else method
        elif word.startswith("-"):
            assert set(word[1:]) <= CURL_ALONE, word
        else:
            path = re.sub(r"^(?:https?://)?[\w.]+(?::\d+)?", "", word).partition("?")[0]
    assert path, words
    operation = operation_of(method, path)
    if body is not None:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        whole = {**schema, "components": document_of_routes()["components"]}
        validator_for(whole).validate(json.loads(body))


@cache
def document_of_routes() -> dict[str, Any]:
    return create_app().openapi()


def operation_of(method: str, path: str) -> dict[str, Any]:
    for template, operations in document_of_routes()["paths"].items():
        # Paths without a version stand for the first.
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template).replace("/v1", "(?:/v1)?", 1), path):
            found: dict[str, Any] = operations[method.lower()]
            return found
    raise AssertionError(f"{method} {path}: no such route")


CHECKS = {
    "hplb": check_hplb,
    "make": check_make,
    "python": check_python,
    "python3": check_python,
    "pytest": check_pytest,
    "curl": check_curl,
}
"""By a command's first word; another one is a KeyError, to be thought about."""


@pytest.mark.parametrize(
    "typed",
    [
        "$ hplb plan --gpu 8",
        "$ hplb replan",
        "$ hplb plan --gpus many",
        "$ make runs",
        "$ make run PROFIL=x",
        "$ make run RUN_FLAGS='--layer 2'",
        "$ python benchmarks/placement.py --gpu 8",
        "$ python -m benchmarks.gpu_result",
        "$ pytest tests/no_such_file.py",
        '$ curl -s localhost:8000/plan --json \'{"profil": "x"}\'',
        "$ curl -s localhost:8000/plan",
        "$ curl --jsn localhost:8000/plans",
        "$ curl -s localhost:8000/plans | frobnicate",
    ],
)
def test_what_does_not_exist_is_found(typed: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - every parser has its own
        check(typed)
