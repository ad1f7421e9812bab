"""What can be wrong with an evaluation's input."""

from profiles.errors import HplbError


class EvaluationError(HplbError):
    """A model, a profile, a file or an option that an evaluation cannot work with."""
