"""What can be wrong with a budget policy's input."""

from profiles.errors import HplbError


class BudgetError(HplbError):
    """A policy cannot work with this profile, these options or this size."""
