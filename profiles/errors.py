"""What can be wrong with a profile, a file or a figure in it.

HplbError
 +- ProfileError        a profile's figures: names the layer, head and field
 +- UnknownNameError    a profile, model or device nobody has heard of; lists the known ones
 +- MeasuringError      a model, or the prompts and choices it is to be measured with
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Attention raises these errors where there is no pydantic.
    from pydantic import ValidationError


class HplbError(Exception):
    """Bad input: the message says what was wrong, where, and what would be right."""


class ProfileError(HplbError):
    """A profile's content or its source file is wrong."""


class UnknownNameError(HplbError):
    """A name that is in no catalogue."""


class MeasuringError(HplbError):
    """A model that cannot be measured, or not on these prompts or with these choices."""


def describe(error: "ValidationError") -> str:
    """Every fault of a pydantic error on one line: `field: what is wrong; ...`."""
    faults = []
    for fault in error.errors(include_url=False)[:5]:
        field = ".".join(str(part) for part in fault["loc"])
        words = fault["msg"].removeprefix("Value error, ")
        faults.append(f"{field}: {words}" if field else words)
    more = error.error_count() - len(faults)
    return "; ".join(faults) + (f"; and {more} more" if more > 0 else "")
