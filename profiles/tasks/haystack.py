"""What the needles lie in: repeated noise, or text of the standard library's own docstrings.

The text depends on the Python version; whoever records a result records the version too.
"""

import ast
import hashlib
import re
import sysconfig
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]

NOISE = (
    "the grass is green .",
    "the sky is blue .",
    "the sun is yellow .",
    "here we go .",
    "there and back again .",
)
HELD_OUT_OF_TEN = 1
LONGEST_SENTENCE_WORDS = 40
SHORTEST_SENTENCE_WORDS = 4


def is_held_out(module: str) -> bool:
    """Whether a module's text is kept from training: decided by its name's hash."""
    return hashlib.sha256(module.encode()).digest()[0] % 10 < HELD_OUT_OF_TEN


@cache
def sentences(split: Split) -> tuple[str, ...]:
    """Sentences of the docstrings of the standard library's top modules and packages."""
    found: list[str] = []
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted([*root.glob("*.py"), *root.glob("[a-z]*/*.py")]):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        if is_held_out(path.relative_to(root).parts[0].removesuffix(".py")) == (
            split == "held_out"
        ):
            found += _sentences_of(path)
    return tuple(dict.fromkeys(found))


def _sentences_of(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            for sentence in re.split(r"(?<=[.:!?])\s+|\n\s*\n", text):
                words = re.findall(r"[a-z]+|[.,;:()!?'=-]", sentence.lower())
                if SHORTEST_SENTENCE_WORDS <= len(words) <= LONGEST_SENTENCE_WORDS:
                    found.append(" ".join(words).rstrip(" .") + " .")
    return found


class Text:
    """A stream of sentences, a run of neighbours at a time, so that it reads like text."""

    def __init__(self, random: Random, split: Split) -> None:
        self._random = random
        self._sentences = sentences(split)
        self._next = self._left = 0

    def __call__(self) -> str:
        if not self._left:
            self._next = self._random.randrange(len(self._sentences))
            self._left = self._random.randint(4, 16)
        self._left -= 1
        self._next = (self._next + 1) % len(self._sentences)
        return self._sentences[self._next]


class Noise:
    """The same few sentences round and round (RULER's noise haystack)."""

    def __init__(self) -> None:
        self._next = -1

    def __call__(self) -> str:
        self._next = (self._next + 1) % len(NOISE)
        return NOISE[self._next]
