"""What can go wrong in the executor.

HplbError
 +- AttentionError      tensors, shares or lengths that do not fit each other or the back end
 +- ShardError          a plan gives a device work that cannot be worked out
 +- CannotMeasureError  this node cannot run that share: phase, memory, device or backend
 +- EvaluationError     a model, a profile, a file or an option that cannot be evaluated
 +- WeightsError        a plan that a checkpoint cannot be laid out by, or a checkpoint that cannot
 |                      be laid out
 +- StateError          the state directory cannot be used
"""

from profiles.errors import HplbError


class AttentionError(HplbError):
    """Tensors, shares, lengths or block size that do not fit each other or the back end."""


class ShardError(HplbError):
    """A layer of a plan cannot be split into what each device computes."""


class CannotMeasureError(HplbError):
    """This node cannot run what it was asked to; the message names the limit."""


class EvaluationError(HplbError):
    """A model, a profile, a file or an option that an evaluation cannot work with."""


class WeightsError(HplbError):
    """A plan, a checkpoint or a map that do not go together, or heads that cannot be permuted."""


class StateError(HplbError):
    """The state directory is in use, unreadable or not a directory."""
