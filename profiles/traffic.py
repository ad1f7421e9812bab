"""What an engine is asked for: the lengths of its requests, from published traces or a list, and
what its steps came to."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiles.cost.work import Phase
from profiles.errors import ProfileError
from profiles.files import json_of, read_text
from profiles.sizes import MAX_CONTEXT

NAMES = (
    ("input_length", "output_length"),
    ("ContextTokens", "GeneratedTokens"),
    ("prompt_tokens", "output_tokens"),
)
"""Of a prompt's tokens and of those made from it: in Mooncake's traces (JSON lines), in Azure's
(CSV), and in ours."""


LEAST_SHARE = 0.02
"""Of an engine's attention: what takes less is no class of its own."""


@dataclass(frozen=True, eq=False)
class Traffic:
    """Prompt tokens of every request, and the tokens made from each, where that is known.

    int64 [requests] each.
    """

    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64] | None

    def classes(self) -> Iterator[tuple[int, int, int | None]]:
        """Requests between two powers of two together, the shortest first: how many there are,
        their mean prompt, and all that is made from them."""
        power = _class(self.prompt_tokens)
        for one in np.unique(power):
            of_it = power == one
            made = None if self.output_tokens is None else int(self.output_tokens[of_it].sum())
            yield int(of_it.sum()), round(float(self.prompt_tokens[of_it].mean())), made


@dataclass(frozen=True)
class StepClass:
    """Steps of one phase between two powers of two, as a workload: `share` of all seconds.

    A decode's `batch_size` is its sequences, a prefill's 1: chunks are parts of prompts.
    """

    prefill: bool
    context_tokens: int
    batch_size: int
    share: float

    @property
    def phase(self) -> Phase:
        return "prefill" if self.prefill else "decode"


@dataclass(frozen=True, eq=False)
class StepTraffic:
    """Parts of an engine's steps that are all prompts or all decodes, [parts] each.

    `tokens`: a prefill's, as whole prompts of so many have as many keys a row; a decode's mean
    context. `rows` are the query rows, `seconds` what attention took.
    """

    prefill: NDArray[np.bool_]
    sequences: NDArray[np.int64]
    rows: NDArray[np.int64]
    tokens: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def classes(self) -> list[StepClass]:
        """What most of the time goes to, the longest share first; figures rounded, so that a
        traffic that stays what it is stays the same."""
        power, total = _class(self.tokens), self.seconds.sum()
        found = []
        for prefill in (True, False):
            for one in np.unique(power[self.prefill == prefill]):
                of_it = (power == one) & (self.prefill == prefill)
                share = float(self.seconds[of_it].sum() / total) if total else 0.0
                if share < LEAST_SHARE:
                    continue
                context = np.average(self.tokens[of_it], weights=self.rows[of_it])
                batch = np.average(self.sequences[of_it], weights=self.seconds[of_it])
                size = 1 if prefill else _rounded(batch)
                found.append(StepClass(prefill, _rounded(context), size, round(share, 2)))
        return sorted(found, key=lambda each: -each.share)


def _class(tokens: NDArray[Any]) -> NDArray[np.float64]:
    """The powers of two that lengths are at most; 1 to 1,024 tokens are one class, for attention
    is next to nothing there."""
    return np.asarray(np.maximum(np.ceil(np.log2(tokens)), 10), dtype=np.float64)


def _rounded(value: float) -> int:
    """To two digits, at least 1."""
    return max(1, int(float(f"{value:.2g}")))


def read_traffic(path: Path) -> Traffic:
    """A trace of Mooncake's or Azure's columns, or prompt lengths alone, one a line.

    Columns beside the lengths are not looked at. Raises ProfileError, which names the line.
    """
    text = read_text(path)
    first = text.lstrip()[:1]
    rows: list[tuple[int, Any, Any]] = []
    if first == "{":
        rows = list(_of_json_lines(text, path))
    elif first.isdigit() and "," not in text.lstrip().split("\n", 1)[0]:
        rows = [(number, line.strip(), None) for number, line in _lines(text)]
    elif first:
        rows = list(_of_table(text, path))
    if not rows:
        raise ProfileError(f"{path}: no requests")
    prompts, outputs = [], []
    for number, prompt, output in rows:
        where = f"{path}: line {number}"
        prompts.append(tokens_of(prompt, where))
        if output is None:
            continue
        outputs.append(tokens_of(output, where, least=0))
        if prompts[-1] + outputs[-1] > MAX_CONTEXT:
            raise ProfileError(
                f"{where}: {prompts[-1]:,} tokens and {outputs[-1]:,} made from them are more "
                f"than the {MAX_CONTEXT:,} of the longest context that is planned for"
            )
    if outputs and len(outputs) < len(rows):
        raise ProfileError(
            f"{path}: {len(outputs)} of {len(rows)} requests say how many tokens were made"
        )
    return Traffic(
        np.array(prompts, dtype=np.int64), np.array(outputs, dtype=np.int64) if outputs else None
    )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _of_json_lines(text: str, path: Path) -> Iterator[tuple[int, Any, Any]]:
    for number, line in _lines(text):
        where = f"{path}: line {number}"
        row = json_of(line, where)
        if not isinstance(row, dict):
            raise ProfileError(f"{where}: must be an object of a request")
        prompt, output = _columns(row, where)
        yield number, row[prompt], row.get(output)


def _of_table(text: str, path: Path) -> Iterator[tuple[int, Any, Any]]:
    rows = csv.DictReader(io.StringIO(text))
    try:
        prompt, output = _columns(dict.fromkeys(rows.fieldnames or ()), f"{path}: line 1")
        for row in rows:
            yield rows.line_num, row[prompt], row.get(output)
    except csv.Error as error:
        raise ProfileError(f"{path}: line {rows.line_num + 1}: {error}") from None


def _columns(row: dict[str, Any], where: str) -> tuple[str, str]:
    for prompt, output in NAMES:
        if prompt in row:
            return prompt, output
    known = ", ".join(prompt for prompt, _ in NAMES)
    raise ProfileError(
        f"{where}: no column of prompt lengths ({known}), nor a length alone on every line"
    )


def tokens_of(value: Any, where: str, least: int = 1) -> int:
    """A whole number of tokens, written as one, of at most the longest context that is planned for.

    ProfileError says `where` it is none.
    """
    # `int` refuses what is far longer.
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 100:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_CONTEXT:
        raise ProfileError(
            f"{where}: {shortened(value)} is not a number of tokens, {least} to {MAX_CONTEXT:,}"
        )
    return value
