"""Prompts as JSON lines: what a profile is measured on, and an evaluation asked with."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from profiles.errors import ProfileError, describe
from profiles.files import json_of, read_text, write_atomically
from profiles.tasks import ruler
from profiles.tasks.example import Example, Question
from profiles.tasks.haystack import Split
from profiles.tasks.token_room import Count


class Prompt(BaseModel):
    """One line. A plain text needs only `text`; a generated task has questions behind it.

    `tokens` is the context a task was made for: it is measured at that context only. A prompt
    without it serves every context that it is long enough for, cut at its beginning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Annotated[str, Field(min_length=1)]
    task: Annotated[str, Field(min_length=1, max_length=100)] = "text"
    questions: tuple[Question, ...] = ()
    tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None

    @property
    def whole(self) -> str:
        """Text, questions and answers, as the model reads them."""
        asked = [f"{q.prompt} {' '.join(q.answers)} ." for q in self.questions]
        return " ".join([self.text, *asked])


def of_example(example: Example, tokens: int) -> Prompt:
    """A generated example as a prompt of its context."""
    return Prompt(
        text=example.context, task=example.task, questions=example.questions, tokens=tokens
    )


def read(path: Path) -> list[Prompt]:
    """Every prompt of a file; ProfileError names the line that is none."""
    prompts = []
    # Texts may hold U+2028 and other ends of line that are none to JSON lines.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            prompts.append(Prompt.model_validate(json_of(line, where)))
        except ValidationError as error:
            raise ProfileError(f"{where}: {describe(error)}") from None
    if not prompts:
        raise ProfileError(f"{path}: no prompts; one JSON object a line, with at least a text")
    return prompts


def write(path: Path, prompts: list[Prompt]) -> None:
    """Write the prompts whole or not at all."""
    lines = [json.dumps(p.model_dump(mode="json", exclude_defaults=True)) for p in prompts]
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def generated(
    tasks: Sequence[str],
    contexts: Sequence[int],
    each: int,
    seed: int,
    count: Count,
    split: Split,
    show: Callable[[float, float, str], None] = lambda *_: None,
) -> list[Prompt]:
    """`each` prompts of every task at every context, named by `seed`, `seed` + 1 and so on.

    `show` is told how many are made, of how many, and what comes next.
    """
    made: list[Prompt] = []
    whole = len(contexts) * len(tasks) * each
    for context in contexts:
        for task in tasks:
            show(len(made), whole, f"{task} at {context:,} tokens")
            made += [
                of_example(ruler.make(task, context, seed + index, count, split), context)
                for index in range(each)
            ]
    return made
