"""Which fields JSON leaves out: what an older peer does not know, it is not sent in vain."""


def is_none(value: object) -> bool:
    """For `exclude_if`."""
    return value is None
