"""How far a measurement is, layer by layer: one prompt alone may take many minutes."""

from time import perf_counter

from profiles.measuring.data import Item
from profiles.measuring.prompt_run import PromptRun
from profiles.time_left import Show, TimeLeft, forward_work


class LayerProgress:
    """Tells what is done in layers of all prompts, and the time left by what they took so far."""

    def __init__(self, run: PromptRun, todo: list[Item], progress: Show) -> None:
        self._run = run
        self._layers = run.loaded.architecture.layers
        self._total = len(todo) * self._layers
        self._left = TimeLeft(sum(self._work(item) for item in todo))
        self._progress = progress
        self._before = 0

    def begin(self, item: Item) -> None:
        self._item, self._share, self._since = item, 0.0, perf_counter()
        self._tell()

    def __call__(self, share: float) -> None:
        """So much of the prompt that was begun is measured."""
        now = perf_counter()
        self._left.done((share - self._share) * self._work(self._item), now - self._since)
        self._share, self._since = share, now
        self._tell()

    def end(self, seconds: float) -> None:
        """The prompt is measured, now or in an earlier run, where it took `seconds`."""
        self._left.done((1 - self._share) * self._work(self._item), seconds * (1 - self._share))
        self._before += self._layers

    def done(self) -> None:
        self._progress(self._total, self._total, "done")

    def _tell(self) -> None:
        done = self._before + round(self._share * self._layers)
        what = f"{self._item.task}, {self._item.context_tokens} tokens"
        if done < self._total:
            self._progress(done, self._total, self._left.after(what))

    def _work(self, item: Item) -> float:
        width = self._run.loaded.architecture.hidden_size
        return self._run.passes(item) * forward_work(len(item.tokens), width)
