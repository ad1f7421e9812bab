"""What can be wrong with a profile, a file or a figure in it.

HplbError
 +- ProfileError        a profile's figures: names the layer, head and field
 +- UnknownNameError    a profile, model or device nobody has heard of; lists the known ones
 +- MeasuringError      a model, or the prompts and choices it is to be measured with
"""


class HplbError(Exception):
    """Bad input: the message says what was wrong, where, and what would be right."""


class ProfileError(HplbError):
    """A profile's content or its source file is wrong."""


class UnknownNameError(HplbError):
    """A name that is in no catalogue."""


class MeasuringError(HplbError):
    """A model that cannot be measured, or not on these prompts or with these choices."""
