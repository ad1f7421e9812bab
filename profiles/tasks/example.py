"""One generated example of a task: a context, then questions whose answers it holds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """`prompt` asks, `answers` are the words that must follow it.

    `ordered`: the words in this order; otherwise any word not yet named is right at each place.
    """

    prompt: str
    answers: tuple[str, ...]
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """`task` is one of `profiles.tasks.ruler.TASKS`; `context` comes before every question."""

    task: str
    context: str
    questions: tuple[Question, ...]
