"""The lists of a layout have as many pieces as the cost model counts."""

from hypothesis import given
from hypothesis import strategies as st

from executor.attention.lists import lay_out
from executor.kernels.layout import HeadBlocks
from profiles.sizes import causal_pieces
from tests.executor.kernels.reference import whole_prompts

SIZE = 8


@given(st.integers(1, 99), st.integers(1, 900), st.sampled_from([1, 2, 4]))
def test_the_pieces_of_a_heads_lists_follow_from_its_budget(budget, tokens, per_block):
    block = per_block * SIZE
    blocks, pieces = -(-tokens // block), -(-tokens // SIZE)
    head = HeadBlocks(0, 0, budget, 0, blocks)
    layout = lay_out([head], whole_prompts(tokens), block, piece_tokens=SIZE)
    kept = max(budget, per_block)
    assert layout.length.tolist() == [
        min(kept, (row + 1) * per_block, pieces) for row in range(blocks)
    ]
    assert layout.tiles == int(layout.length.sum())
    if pieces == blocks * per_block:
        assert layout.tiles == causal_pieces(min(kept, pieces), blocks, per_block)
