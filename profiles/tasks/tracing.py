"""Variable tracking: chains of assignments, and which variables hold a value in the end."""

from itertools import pairwise

from profiles.tasks.example import Example, Question
from profiles.tasks.haystack import Noise
from profiles.tasks.token_room import TokenRoom
from profiles.tasks.words import NAMES, NUMBERS

HOPS = 4


def variable_tracking(room: TokenRoom, chains: int = 1) -> Example:
    """VT: "let 417 Bako ." gives Bako the value, "let Bako Timu ." hands it on; asked: who has it.

    The first variable is next to the value and each next one next to the last.
    """
    length = HOPS + 1
    names = room.random.sample(NAMES, chains * length)
    facts, questions = [], []
    for index, number in enumerate(room.random.sample(NUMBERS, chains)):
        chain = names[index * length : (index + 1) * length]
        facts += [f"let {number} {chain[0]} ."]
        facts += [f"let {old} {new} ." for old, new in pairwise(chain)]
        questions.append(Question(f"equal {number}", tuple(chain), ordered=False))
    pieces = room.spread(facts, Noise(), room.left_for_context(questions))
    return Example("vt", " ".join(pieces), tuple(questions))
