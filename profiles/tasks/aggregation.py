"""Aggregation: which words of a long list come most often."""

from profiles.tasks.example import Example, Question
from profiles.tasks.token_room import TokenRoom
from profiles.tasks.words import NAMES

COMMON_WORDS = 10
MOST_COMMON_TIMES = 30
RARE_SHARE = 10
FREQUENT_WORDS = 3
ZETA = 2.0
ZETA_WORDS = 50


def common_words(room: TokenRoom) -> Example:
    """CWE: ten words come ten times as often as all others; asked: those ten."""
    names = room.random.sample(NAMES, len(NAMES))
    common, rare = names[:COMMON_WORDS], names[COMMON_WORDS:]
    questions = [Question("common words", tuple(sorted(common)), ordered=False)]
    tokens = room.left_for_context(questions)
    a_word = room.count(names[0])
    times = min(MOST_COMMON_TIMES, max(4, tokens // (2 * COMMON_WORDS * a_word)))
    rare_times = max(1, times // RARE_SHARE)
    rare_count = (tokens // a_word - times * COMMON_WORDS) // rare_times
    words = common * times + rare[: max(0, rare_count)] * rare_times
    room.random.shuffle(words)
    return Example("cwe", " ".join(words[: tokens // a_word]), tuple(questions))


def frequent_words(room: TokenRoom) -> Example:
    """FWE: word k comes in proportion to k to the power -2; asked: the three most frequent."""
    names = room.random.sample(NAMES, ZETA_WORDS)
    questions = [Question("frequent words", tuple(names[:FREQUENT_WORDS]), ordered=False)]
    tokens = room.left_for_context(questions)
    total = tokens // room.count(names[0])
    weights = [rank**-ZETA for rank in range(1, ZETA_WORDS + 1)]
    times = [max(1, int(total * weight / sum(weights))) for weight in weights]
    words = [name for name, count in zip(names, times, strict=True) for _ in range(count)]
    del words[total:]
    room.random.shuffle(words)
    return Example("fwe", " ".join(words), tuple(questions))
