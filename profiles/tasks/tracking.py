"""Variable tracking: chains of assignments, and which variables hold a value in the end."""

from profiles.tasks.haystack import Noise, Split
from profiles.tasks.room import Room
from profiles.tasks.sample import Question, Sample
from profiles.tasks.words import NAMES, NUMBERS

HOPS = 4


def variable_tracking(room: Room, split: Split, chains: int = 1) -> Sample:
    """VT: "let Bako 417 .", then "let Timu Bako ." and so on; asked: all that equal 417."""
    length = HOPS + 1
    names = room.random.sample(NAMES, chains * length)
    facts, questions = [], []
    for index, number in enumerate(room.random.sample(NUMBERS, chains)):
        chain = names[index * length : (index + 1) * length]
        facts += [f"let {chain[0]} {number} ."]
        facts += [f"let {new} {old} ." for old, new in zip(chain, chain[1:], strict=False)]
        questions.append(Question(f"equal {number}", tuple(chain), ordered=False))
    pieces = room.spread(facts, Noise(), room.left_for_context(questions))
    return Sample("vt", " ".join(pieces), tuple(questions))
