"""The examples in docstrings are what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import executor

ROOT = Path(executor.__file__).parent
WITH_EXAMPLES = [
    ".".join(["executor", *path.relative_to(ROOT).with_suffix("").parts])
    for path in sorted(ROOT.rglob("*.py"))
    if path.name != "__init__.py" and ">>> " in path.read_text()
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples(module: str) -> None:
    found = doctest.testmod(import_module(module))
    assert found.attempted > 0
    assert found.failed == 0
