"""Words the tasks are made of: names, syllables and numbers, the same on every machine.

Capitals and digits keep them apart from the lower-case text they are hidden in.
"""

from itertools import product
from random import Random

NAMES_SEED = 7
HOW_MANY_NAMES = 512
HOW_MANY_SYLLABLES = 128

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"


def _names() -> tuple[str, ...]:
    every = ["".join(letters).capitalize() for letters in product(_CONSONANTS, _VOWELS, repeat=2)]
    return tuple(sorted(Random(NAMES_SEED).sample(every, HOW_MANY_NAMES)))


def _syllables() -> tuple[str, ...]:
    every = ["".join(letters).upper() for letters in product(_CONSONANTS, _VOWELS, _CONSONANTS)]
    return tuple(sorted(Random(NAMES_SEED).sample(every, HOW_MANY_SYLLABLES)))


NAMES = _names()
SYLLABLES = _syllables()
NUMBERS = tuple(str(number) for number in range(100, 612))
