"""All methods on the same samples, one context after another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from executor.errors import EvaluationError
from executor.evaluation.asked import Asked, ask
from executor.evaluation.density import Setting
from executor.evaluation.generation import Generated, compare
from executor.evaluation.journal import TEXT, Journal, Key, Row
from executor.evaluation.loaded import check_positions
from executor.evaluation.makespan import Devices
from executor.evaluation.methods import DENSE, ONLINE, Maker, Method, watch
from executor.evaluation.scoring import answer, surprise
from executor.evaluation.texts import scored_tokens, windows
from profiles.catalogue import device_profile
from profiles.measuring.loading import Loaded, most_tokens
from profiles.model import ModelProfile
from profiles.selection import Selection
from profiles.tasks import ruler
from profiles.tasks.haystack import Split
from profiles.time_left import Show, TimeLeft, forward_work
from solver.budgets.options import Curve

FIRST_SEED = 1_000_000
"""Samples' seeds begin here, so that none is a seed that a profile was measured with."""
SEEDS_APART = 100_000
CALIBRATION_SAMPLES = 1
"""Of every task, from the split for training."""


@dataclass(frozen=True)
class Options:
    """What is evaluated; `samples` of every task, and as many windows of text.

    `generate`: so many samples of every task are answered by generation too, under every method.
    `floor_tokens` and `curve` are those of `solver.budgets.options.BudgetOptions`.
    """

    contexts: tuple[int, ...]
    densities: tuple[float, ...]
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    samples: int
    seed: int
    block_tokens: int
    piece_tokens: int
    selection: Selection
    floor_tokens: int
    devices: Devices
    curve: Curve | None = None
    text: Path | None = None
    generate: int = 0

    @property
    def seeds(self) -> range:
        first = FIRST_SEED + SEEDS_APART * self.seed
        return range(first, first + self.samples)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One context: its methods, dense attention first, and what was measured.

    `makespan_s` goes by (method, density): seconds of attention as the planner predicts them.
    """

    setting: Setting
    methods: list[Method]
    rows: list[Row]
    makespan_s: dict[tuple[str, float | None], float]
    generated: list[Generated] = field(default_factory=list)


def check(options: Options, loaded: Loaded) -> None:
    """Raise HplbError for what cannot be evaluated, before anything is computed."""
    for task in options.tasks:
        if task not in ruler.TASKS:
            raise EvaluationError(
                f"--tasks: {task!r} is unknown; known are {', '.join(ruler.TASKS)}"
            )
    if not 1 <= options.samples <= SEEDS_APART:
        raise EvaluationError(f"--samples: {options.samples} must be from 1 to {SEEDS_APART}")
    if not 0 <= options.generate <= options.samples:
        raise EvaluationError(f"--generate: {options.generate} must be from 0 to --samples")
    if options.seed < 0:
        raise EvaluationError(f"--seed: {options.seed} must not be negative")
    if not options.contexts or not options.densities or not options.tasks:
        raise EvaluationError("--contexts, --densities and --tasks: each must name at least one")
    for density in options.densities:
        if not 0 < density <= 1:
            raise EvaluationError(f"--densities: {density} must be above 0 and at most 1")
    for context in options.contexts:
        if context < ruler.SHORTEST_TOKENS:
            raise EvaluationError(
                f"--contexts: {context} tokens are too few for a task: "
                f"{ruler.SHORTEST_TOKENS} at least"
            )
        check_positions(loaded, "--contexts", context)
    device_profile(options.devices.type)
    windows(options.text, loaded.tokenizer, max(options.contexts), 1)


def evaluate(
    loaded: Loaded,
    profile: ModelProfile,
    options: Options,
    journal: Journal[Row],
    progress: Show,
) -> Iterator[Evaluated]:
    """Every context; rows the journal has are not computed again. `progress` counts rows."""
    texts = {
        context: windows(options.text, loaded.tokenizer, context, options.samples)
        for context in options.contexts
    }
    told = _Told(loaded, options, texts, progress)
    for context in options.contexts:
        told.next(f"{context} tokens, calibrating")
        asked = list(_samples(loaded, options, context, "held_out", options.seeds))
        setting = Setting(
            profile,
            context,
            options.block_tokens,
            [sample.prompt_tokens for sample in asked],
            options.floor_tokens,
            options.curve,
            options.piece_tokens,
        )
        methods = _methods(loaded, options, setting)
        rows = [
            *_answered(loaded, options, context, methods, asked, journal, told),
            *_read(loaded, options, context, methods, texts[context], journal, told),
        ]
        makespan_s = {
            (method.name, method.density): method.predicted_s(setting, options.devices)
            for method in methods
        }
        chosen = [sample for sample in asked if sample.seed in options.seeds[: options.generate]]
        generated = []
        for method in methods if chosen else ():
            told.next(f"{context} tokens, generating by {method.name}")
            started = perf_counter()
            generated.append(compare(loaded, method, chosen, rows))
            told.done(context, perf_counter() - started, len(chosen))
        yield Evaluated(setting, methods, rows, makespan_s, generated)
    told.next("done")


class _Told:
    """Counts rows, and samples that are generated, which cost about as much, and tells of them."""

    def __init__(
        self,
        loaded: Loaded,
        options: Options,
        texts: Mapping[int, Sequence[tuple[int, ...]]],
        progress: Show,
    ) -> None:
        hidden = loaded.model.config.get_text_config().hidden_size
        sparse = [name for name in options.methods if name != DENSE]
        methods = 1 + len(options.densities) * len(sparse)
        each = (options.samples + options.generate) * len(options.tasks)
        counts = {c: methods * (each + len(found)) for c, found in texts.items()}
        self._work = {context: forward_work(context, hidden) for context in counts}
        self._left = TimeLeft(sum(counts[c] * self._work[c] for c in counts))
        self._total, self._done = sum(counts.values()), 0
        self._progress = progress

    def next(self, what: str) -> None:
        """Tell what comes next."""
        words = self._left.after(what) if self._done < self._total else what
        self._progress(self._done, self._total, words)

    def done(self, context: int, seconds: float | None, rows: int = 1) -> None:
        """`rows` took `seconds` together; None where the journal had them."""
        self._done += rows
        self._left.done(rows * self._work[context], seconds)


def _samples(
    loaded: Loaded, options: Options, context: int, split: Split, seeds: Sequence[int]
) -> Iterator[Asked]:
    """Samples of all tasks, one of each before the next."""
    most = most_tokens(loaded.model)
    for seed in seeds:
        for task in options.tasks:
            sample = ruler.make(task, context, seed, loaded.count, split)
            asked = ask(sample, seed, loaded.tokenizer)
            if most is not None and len(asked.ids) > most:
                raise EvaluationError(
                    f"--contexts: {task} at {context} tokens, seed {seed}, has {len(asked.ids)} "
                    f"with the tokenizer's own; the model has {most} positions"
                )
            yield asked


def _methods(loaded: Loaded, options: Options, setting: Setting) -> list[Method]:
    online = [name for name in ONLINE if name in options.methods]
    watched = {}
    if online:
        seeds = options.seeds[:CALIBRATION_SAMPLES]
        prompts = list(_samples(loaded, options, setting.context_tokens, "train", seeds))
        for name in online:
            watched[name] = watch(loaded.model, prompts, name, setting)
    maker = Maker(setting, options.selection, options.devices, watched)
    methods = [maker.dense()]
    for density in options.densities:
        methods += maker.at(density, options.methods)
    return methods


def _answered(
    loaded: Loaded,
    options: Options,
    context: int,
    methods: Sequence[Method],
    asked: Sequence[Asked],
    journal: Journal[Row],
    told: _Told,
) -> Iterator[Row]:
    for sample in asked:
        for method in methods:
            key: Key = (context, *_named(method), sample.task, sample.seed)
            told.next(f"{context} tokens, {sample.task}")
            seconds = None
            if key not in journal.rows:
                started = perf_counter()
                value, computed = answer(loaded.model, sample, method.policy, options.block_tokens)
                journal.add(Row(*key, value, computed.tiles, computed.dense_tiles))
                seconds = perf_counter() - started
            told.done(context, seconds)
            yield journal.rows[key]


def _read(
    loaded: Loaded,
    options: Options,
    context: int,
    methods: Sequence[Method],
    texts: Sequence[tuple[int, ...]],
    journal: Journal[Row],
    told: _Told,
) -> Iterator[Row]:
    scored = scored_tokens(context)
    for window, ids in enumerate(texts):
        for method in methods:
            key: Key = (context, *_named(method), TEXT, window)
            told.next(f"{context} tokens, text")
            seconds = None
            if key not in journal.rows:
                started = perf_counter()
                nats, computed = surprise(
                    loaded.model, ids, scored, method.policy, options.block_tokens
                )
                journal.add(Row(*key, nats, computed.tiles, computed.dense_tiles))
                seconds = perf_counter() - started
            told.done(context, seconds)
            yield journal.rows[key]


def _named(method: Method) -> tuple[str, float | None, str]:
    return method.name, method.density, method.setup
