"""Two sizes in tokens: the block, query rows that share a list of keys, and the piece of that list.

They part because they cost differently: a large block loads keys for many rows at once, while small
pieces let a list hold the keys its rows need and few others. Budgets round up to pieces.
"""


def sizes_fault(block_tokens: int, piece_tokens: int) -> str | None:
    """Why these two do not go together, beginning with the field's name."""
    if piece_tokens >= 1 and block_tokens % piece_tokens == 0:
        return None
    return f"piece_tokens: {piece_tokens} does not divide block_tokens, {block_tokens}"
