"""What GPU benchmarks say a call did, beside what the executor and the cost model count."""

from dataclasses import replace

import pytest

from benchmarks.gpu.work import decode_work, prefill_work
from executor.attention.counts import count_decodes, count_prompts
from executor.attention.lists import lay_out, lists_of_heads
from executor.kernels.batch import Chunk
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Rule, Sampled, VerticalSlash, by_budget

CHUNKS = (Chunk(0, 150), Chunk(40, 30))
HEADS = [
    HeadBlocks(0, 0, 99, 0, 10),
    HeadBlocks(1, 0, 3, 0, 10, pattern=Sampled(2)),
    HeadBlocks(2, 1, 3, 4, 7, pattern=VerticalSlash()),
    HeadBlocks(3, 1, 4, 0, 10, pattern=Rule.sink_local()),
    HeadBlocks(3, 1, 2, 2, 5, sequence=1),
    HeadBlocks(2, 1, 9, 2, 5, sequence=1, pattern=Rule.strided(2, 3)),
]


@pytest.mark.parametrize(("block", "piece"), [(16, 16), (32, 16), (48, 16)])
def test_kinds_of_tiles_add_up_and_counts_are_the_executors(block, piece):
    per_block = block // piece
    heads = [
        replace(x, first=x.first // per_block, last=-(-x.last // per_block))
        for x in HEADS
        if per_block == 1 or by_budget(x.pattern)
    ]
    layout = lay_out(heads, CHUNKS, block, piece_tokens=piece)
    work = prefill_work(layout, 32, 2, chooses=True)
    (counts,) = (x.counts for x in count_prompts(*lists_of_heads(heads, CHUNKS, block, piece)))
    kinds = sum(work[f"{kind}_flops"] for kind in ("diagonal", "dense", "listed"))
    assert kinds == 4 * block * piece * 32 * counts.tiles
    assert work["listed_flops"] == 4 * block * piece * 32 * counts.gathered_tiles
    sparse = [x for x in heads if x.budget_pieces < layout.grid(x.sequence).pieces]
    tiles = lay_out(sparse, CHUNKS, block, piece_tokens=piece).tiles
    assert work["sparse_head_flops"] == 4 * block * piece * 32 * tiles
    assert (work["block_tokens"], work["piece_tokens"]) == (block, piece)
    assert work["lists"] == counts.query_blocks
    assert sum(work["scored_pairs"].values()) == counts.scored_pieces
    assert work["sampled_pairs"] == counts.sampled_pieces


def test_scored_pairs_by_hand():
    work = prefill_work(lay_out(HEADS, CHUNKS, 16), 32, 2, chooses=True)
    assert work["scored_pairs"] == {"sampled": 55, "vertical_slash": 5 + 6 + 7, "pooled": 3 + 4 + 5}
    assert work["sampled_pairs"] == 2 * 55


def test_a_query_block_of_several_pieces_has_as_many_on_the_diagonal():
    per_tile = 4 * 64 * 16 * 32
    # Ten pieces: the third query block has two of its own.
    layout = lay_out([HeadBlocks(0, 0, 5, 0, 3)], CHUNKS[:1], 64, piece_tokens=16)
    work = prefill_work(layout, 32, 2, chooses=True)
    assert work["diagonal_flops"] == per_tile * (4 + 4 + 2)
    assert work["listed_flops"] == per_tile * (0 + 1 + 3)
    assert work["dense_flops"] == 0
    assert work["scored_pairs"] == {"pooled": 4 + 8 + 10}
    assert work["longest_chain"] == 5
    assert work["read_bytes"] == 2 * 14 * 16 * 32 * 2


def test_a_pair_of_heads_reads_once_what_it_computes_twice():
    heads = [HeadBlocks(head, 0, 99, 0, 10) for head in range(3)]
    alone, packed = (
        prefill_work(lay_out(heads, CHUNKS[:1], 16, pack=pack), 32, 2) for pack in (False, True)
    )
    assert alone["packed_flops"] == 0
    assert packed["packed_flops"] == 4 * 16 * 16 * 32 * 2 * 55
    assert packed["read_bytes"] * 3 == alone["read_bytes"] * 2
    same = alone.keys() - {"packed_flops", "read_bytes"}
    assert {key: alone[key] for key in same} == {key: packed[key] for key in same}


def test_only_lists_without_indices_are_dense_and_only_whole_heads_are_not_sparse():
    per_tile = 4 * 16 * 16 * 32
    layout = lay_out([HeadBlocks(0, 0, 10, 0, 10), HeadBlocks(1, 0, 3, 0, 10)], CHUNKS[:1], 16)
    work = prefill_work(layout, 32, 2)
    assert work["dense_flops"] == per_tile * (45 + 1 + 2)
    assert work["listed_flops"] == per_tile * 7 * 2
    assert work["sparse_head_flops"] == per_tile * (1 + 2 + 8 * 3)


def test_bytes_are_those_of_computed_rows_and_of_the_groups_present():
    layout = lay_out(HEADS, CHUNKS, 16)
    work = prefill_work(layout, 32, 2)
    # Rows 4 to 6 hold tokens 64 to 111; of the chunk's rows 2 to 4, only tokens 40 to 69 are new.
    tokens = 150 + 150 + 48 + 150 + 30 + 30
    assert work["q_bytes"] == work["out_bytes"] == tokens * 32 * 2
    assert work["kv_bytes"] == 2 * (2 * 150 + 70) * 32 * 2
    assert work["read_bytes"] == 2 * layout.tiles * 16 * 32 * 2


def test_choosing_alone_does_no_attention():
    work = prefill_work(lay_out(HEADS, CHUNKS, 16), 32, 2, attends=False, chooses=True)
    assert work["scored_pairs"]
    assert not {"lists", "diagonal_flops", "kv_bytes"} & set(work)


@pytest.mark.parametrize("chooses", [False, True])
def test_a_decode_counts_what_the_executor_does(chooses):
    lists = [
        DecodeHeads(0, 0, 0, (0, 1), 99),
        DecodeHeads(0, 0, 1, (2, 3), 3, pattern=Sampled(2)),
        DecodeHeads(1, 1, 1, (2,), 4, part=(0.0, 0.5)),
    ]
    contexts = [150, 70]
    layout = lay_out_decode(lists, 10, 16)
    work = decode_work(layout, contexts, 32, 2, chooses=chooses)
    counts = count_decodes(lists, contexts, 16)
    assert work["dense_flops"] + work["listed_flops"] == 4 * 16 * 32 * counts.tiles
    assert work["dense_flops"] == 4 * 16 * 32 * 2 * 10
    assert work["kv_bytes"] == 2 * counts.decoded_pieces * 16 * 32 * 2
    assert work["lists"] == counts.query_blocks == 5
    scored = {"sampled": 20, "pooled": 5} if chooses else {}
    assert work["scored_pairs"] == scored
