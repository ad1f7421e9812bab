"""What is trained when: first that words repeat, then the tasks, in contexts that double."""

from dataclasses import dataclass, field

from benchmarks.reference_model.batches import COPY, PAIRS

FIRST_WORDS = 64
LENGTHS = (64, 128, 256, 512, 1024, 2048)
LEAVE_BY = (0.20, 0.32, 0.42, 0.53, 0.72, 1.0)
"""Share of the time by whose end each length is left, solved or not."""
AT_LAST = (2048, 1024, 2048, 512, 2048, 256)
SOLVED = 0.95
REPEATED = 0.85
KEPT_SHARE = 0.2
"""Of a kind's share in the batches, what stays when all of its answers are right."""
SHORT_PERIOD = 16
FORGET = 0.98

WORDS_ONLY = {COPY: 1.0, PAIRS: 1.0}
# Kinds with many questions a context teach retrieval fastest.
TASK_SHARES = {
    COPY: 1.0,
    "niah_multikey_2": 3.0,
    "niah_multikey_3": 6.0,
    "niah_multiquery": 2.0,
    "niah_single_1": 2.0,
    "niah_single_2": 3.0,
    "niah_single_3": 2.0,
    "niah_multivalue": 2.0,
    "vt": 1.5,
    "cwe": 1.0,
    "fwe": 0.5,
    "qa_1": 2.0,
    "qa_2": 0.5,
}


@dataclass
class Curriculum:
    """Where training is; `right` is each kind's share of right answers, a running mean.

    In stage 0 the words in use double whenever repetitions are followed: among few words the
    circuit forms within minutes, and it carries over to more.
    """

    stage: int = 0
    words: int = FIRST_WORDS
    right: dict[str, float] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return LENGTHS[self.stage]

    def length_at(self, step: int) -> int:
        """The length of a step's rows: at last shorter ones too, so that they are not forgotten."""
        last = self.stage == len(LENGTHS) - 1
        return AT_LAST[step % len(AT_LAST)] if last else self.length

    @property
    def shares(self) -> dict[str, float]:
        """How often each kind is drawn: the more, the less of it is right so far."""
        if self.stage == 0:
            return WORDS_ONLY
        wrong = {kind: 1 - max(0.0, self.right.get(kind, 0.0)) for kind in TASK_SHARES}
        return {
            kind: share * (KEPT_SHARE + (1 - KEPT_SHARE) * wrong[kind])
            for kind, share in TASK_SHARES.items()
        }

    @property
    def period(self) -> int:
        return SHORT_PERIOD if self.stage == 0 else (LENGTHS[1] - 1) // 2

    def saw(self, answers: dict[str, tuple[int, int]], done: float, all_words: int) -> None:
        """Take in a step's (right, asked) by kind; move on if that is due at `done` of the time."""
        for kind, (right, asked) in answers.items():
            old = self.right.get(kind, 0.0)
            self.right[kind] = old + (1 - FORGET) * (right / max(1, asked) - old)
        late = done >= LEAVE_BY[self.stage]
        if self.stage == 0:
            if self.right.get(COPY, 0.0) < REPEATED and not late:
                return
            if self.words >= all_words or late:
                self._next_stage(all_words)
            else:
                self.words = min(2 * self.words, all_words)
                self.right[COPY] -= 0.2
        elif self.stage + 1 < len(LENGTHS) and (late or self._solved()):
            self._next_stage(all_words)

    def _solved(self) -> bool:
        return min(self.right.get(kind, 0.0) for kind in TASK_SHARES) >= SOLVED

    def _next_stage(self, all_words: int) -> None:
        self.stage, self.words = self.stage + 1, all_words
        self.right = {kind: value - 0.1 for kind, value in self.right.items()}
