"""What does not fit is refused before anything is computed, and named."""

from dataclasses import replace

import pytest
import torch

from executor.attention.block_sparse import attend
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.checks import check_backend
from executor.errors import AttentionError
from executor.kernels.batch import Cache, Chunk
from executor.kernels.chip import A100, H100
from executor.kernels.patterns import POOLED, Rule, Sampled, VerticalSlash
from profiles.errors import HplbError, UnknownNameError

from .kernels.reference import prefill_reference, random_cache, random_q, relative_error


def arguments():
    chunks = [Chunk(0, 16)]
    step = prepare([HeadShare(0, 0, 16)], chunks, 16)
    return {"q": random_q(chunks, 1, 16), "cache": random_cache(chunks, 1, 16, 16), "step": step}


def test_an_unknown_back_end_is_told_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'cuda': known are auto, torch, triton"):
        attend(**arguments(), backend="cuda")


KEYS = torch.zeros(1, 16, 16)
QUERY = torch.zeros(1, 1, 16)
START = torch.zeros(1, dtype=torch.int32)
PAGES = torch.zeros(1, 1, dtype=torch.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(16, 16)}, r"q: shape \[16, 16\] must be \[heads, new tokens, head_dim"),
        ({"q": torch.zeros(1, 15, 16)}, r"at least 1 heads and the step's 16 new tokens"),
        ({"q": torch.zeros(0, 16, 16)}, r"q: shape \[0, 16, 16\]"),
        ({"q": torch.zeros(1, 16, 8)}, r"cache.keys: .* q's head_dim 8"),
        ({"q": torch.zeros(1, 16, 16, dtype=torch.float16)}, r"cache.keys: torch.float32 .* q's"),
        ({"cache": Cache(KEYS, KEYS)}, r"exactly one of starts and pages"),
        ({"cache": Cache(KEYS, KEYS, START, PAGES)}, r"exactly one of starts and pages"),
        ({"cache": Cache(KEYS[:0], KEYS, START)}, r"cache.keys: shape \[0, 16, 16\]"),
        ({"cache": Cache(KEYS, KEYS[:, :9], START)}, r"cache.values: shape \[1, 9, 16\] is not"),
        ({"cache": Cache(KEYS[:, :9], KEYS[:, :9], START)}, r"9 tokens, but a sequence has 16"),
        ({"cache": Cache(KEYS, KEYS.to("meta"), START)}, r"cache.values: torch.float32 on meta"),
        ({"cache": Cache(KEYS, KEYS, START.long())}, r"cache.starts: torch.int64 .* int32"),
        ({"cache": Cache(KEYS[None], KEYS[None], pages=PAGES[:, :0])}, r"cache.pages: 0 pages"),
        (
            {"cache": Cache(KEYS[None, :, :8], KEYS[None], pages=PAGES)},
            r"\[pages, groups, a multiple of 16, head",
        ),
        ({"cache": Cache(KEYS, KEYS, START[None])}, r"cache.starts: .* int32 of 1 dimensions"),
        ({"cache": Cache(KEYS[None], KEYS[None], pages=START)}, r"cache.pages: .* 2 dimensions"),
        ({"backend": "triton", "sms": 0}, r"sms: 0 must be a whole number, at least 1"),
        ({"sms": 1.5}, r"sms: 1.5"),
        ({"watched_rows": -1}, r"watched_rows: -1 must be a whole number, at least 0"),
        ({"bounds": torch.zeros(1, 1, 2, 8)}, r"bounds: .* of shape \[1, 1, 2, 8\] on cpu must be"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(AttentionError, match=message):
        attend(**{**arguments(), "backend": "torch", **change})


def test_types_nobody_computes_in_are_refused():
    q, keys = torch.zeros(1, 16, 16, dtype=torch.int8), KEYS.to(torch.int8)
    with pytest.raises(AttentionError, match=r"q: torch.int8 must be one of float32"):
        attend(q, Cache(keys, keys, START), arguments()["step"])


def test_decoding_needs_pages():
    step = prepare([HeadShare(0, 0, 16)], [Chunk(15, 1, True)], 16)
    with pytest.raises(AttentionError, match="decoding needs pages; kernels"):
        attend(torch.zeros(1, 1, 16), Cache(KEYS, KEYS, START), step)


def test_bounds_are_the_paged_caches():
    """A mean of every page, or bounds rounded to another type, are none."""
    step = prepare([HeadShare(0, 0, 16)], [Chunk(15, 1, True)], 16)
    cache, q = Cache(KEYS[None], KEYS[None], pages=PAGES), torch.zeros(1, 1, 16)
    for bounds in (torch.zeros(1, 1, 16), torch.zeros(1, 1, 2, 16, dtype=torch.float16)):
        with pytest.raises(
            AttentionError, match=r"bounds: .*, torch.float32 of \[1, 1, 2, 16\] on"
        ):
            attend(q, cache, step, "torch", bounds=bounds)
    assert attend(q, cache, step, "torch", bounds=torch.zeros(1, 1, 2, 16)).lists is not None


def test_sizes_triton_cannot_tile_are_refused_but_computed_on_the_cpu():
    chunks = [Chunk(0, 40)]
    q, cache = random_q(chunks, 1, 24), random_cache(chunks, 1, 24, 20)
    step = prepare([HeadShare(0, 0, 16)], chunks, 16)
    with pytest.raises(HplbError, match=r"head_dim: 24 must be a power of two from 16 to 256"):
        attend(q, cache, step, "triton")
    step = prepare([HeadShare(0, 0, 16)], chunks, 20)
    result = attend(q, cache, step, "torch")
    wanted, _ = prefill_reference(q, cache, step.prefill, result.indices)
    assert relative_error(result.out, wanted) < 1e-5
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 20)
    with pytest.raises(HplbError, match=r"block_tokens: 20 must be a power of two"):
        attend(q, cache, step, "triton")


def test_tensors_on_another_device_are_refused():
    elsewhere = KEYS.to("meta")
    cache = Cache(elsewhere, elsewhere, START.to("meta"))
    with pytest.raises(AttentionError, match="step: was prepared for cpu, but q is on meta"):
        attend(elsewhere, cache, arguments()["step"], "torch")
    step = prepare([HeadShare(0, 0, 16)], [Chunk(0, 16)], 16, "meta")
    with pytest.raises(AttentionError, match="q: is on meta, but the torch back end"):
        attend(elsewhere, cache, step, "torch")


def test_blocks_too_many_for_tritons_selection_are_refused():
    step = prepare([HeadShare(0, 0, 32)], [Chunk(16 * 16384, 1, True)], 16)
    pages = torch.zeros(1, 16385, dtype=torch.int32)
    cache = Cache(KEYS[None], KEYS[None], pages=pages)
    with pytest.raises(AttentionError, match=r"16385 pieces .* triton chooses among 16384"):
        attend(torch.zeros(1, 1, 16), cache, step, "triton")


@pytest.mark.parametrize(
    ("budget_tokens", "tokens", "room_tokens"),
    [((10**9,), (16 * 16385,), None), ((10**9, 32), (16 * 16385, 64), None), ((32,), (64,), 2**20)],
)
def test_pieces_that_nobody_chooses_among_may_be_many(budget_tokens, tokens, room_tokens):
    patterns = [POOLED, Sampled(2)]
    shares = [
        HeadShare(0, 0, budget, sequence=n, pattern=patterns[n])
        for n, budget in enumerate(budget_tokens)
    ]
    chunks = [Chunk(0, count) for count in tokens]
    check_backend(QUERY, prepare(shares, chunks, 16, room_tokens=room_tokens), "triton")


@pytest.mark.parametrize("pattern", [POOLED, Sampled(2), VerticalSlash()], ids=repr)
def test_a_choice_may_stand_beside_a_longer_sequence_that_makes_none(pattern):
    shares = [
        HeadShare(0, 0, 10**9, pattern=pattern),
        HeadShare(0, 0, 32, sequence=1, pattern=pattern),
    ]
    step = prepare(shares, [Chunk(0, 16 * 16385), Chunk(0, 64)], 16)
    check_backend(QUERY, step, "triton")


@pytest.mark.parametrize(
    ("chip", "head_dim", "block", "refused"),
    [
        (H100, 256, 128, True),
        (H100, 256, 64, False),
        (H100, 128, 128, False),
        (A100, 256, 64, True),
        (A100, 256, 32, False),
        (A100, 128, 128, False),
    ],
)
def test_fp32_that_a_chip_has_no_room_for_is_refused_by_name(
    monkeypatch, chip, head_dim, block, refused
):
    monkeypatch.setattr("executor.checks.chip_of", lambda _: chip)
    step, q = prepare([HeadShare(0, 0, 64)], [Chunk(0, 200)], block), torch.zeros(1, 200, head_dim)
    check_backend(q.half(), step, "triton")
    if refused:
        said = rf"q: float32 with head_dim 256 and blocks of {block} .* {chip.program_bytes} bytes"
        with pytest.raises(AttentionError, match=said):
            check_backend(q, step, "triton")
    else:
        check_backend(q, step, "triton")


def test_fp32_decodes_of_too_many_heads_a_list_are_refused_by_name(monkeypatch):
    shares, chunks = [HeadShare(head, 0, 16) for head in range(64)], [Chunk(63, 1, True)]
    q = torch.zeros(64, 1, 256)
    step, unpacked = (prepare(shares, chunks, 16, packed=packed) for packed in (True, False))
    check_backend(q, step, "triton")
    monkeypatch.setattr("executor.checks.chip_of", lambda _: A100)
    check_backend(q.half(), step, "triton")
    check_backend(q, unpacked, "triton")
    with pytest.raises(
        AttentionError, match=r"head_dim 256 and lists of 64 query heads each .*packed=False"
    ):
        check_backend(q, step, "triton")


class Stream:
    """Stands for a CUDA stream: notes what it waits for, and whose memory it uses."""

    def __init__(self) -> None:
        self.waited: list[object] = []
        self.used: list[torch.Tensor] = []

    def wait_event(self, event: object) -> None:
        self.waited.append(event)


@pytest.mark.parametrize("capturing", [False, True])
def test_a_stream_waits_for_the_tables_that_another_copied(monkeypatch, capturing):
    stream, copied = Stream(), object()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, by: by.used.append(x))
    shares = [HeadShare(0, 0, 16), HeadShare(0, 0, 16, sequence=1)]
    step = replace(
        prepare(shares, [Chunk(0, 16), Chunk(15, 1, True)], 16, programs=9), copied=copied
    )
    attend(torch.zeros(1, 17, 16), Cache(KEYS[None], KEYS[None], pages=PAGES.expand(2, 1)), step)
    # What a capture begins with is done: a graph cannot wait for an event from outside of it.
    assert stream.waited == ([] if capturing else [copied])
    # Nor is memory that a step drops given away while another stream still reads it.
    tables = [step.prefill.entries, step.prefill.order, step.decode.part, step.context_tokens]
    for table in tables:
        assert any(table is used for used in stream.used) is not capturing


def test_nothing_is_prepared_while_a_graph_is_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(AttentionError, match=r"prepare: .* before the capture begins"):
        prepare([HeadShare(0, 0, 16)], [Chunk(0, 16)], 16, "cuda")


def test_sizes_of_pieces_and_blocks_that_do_not_fit_are_named():
    shares, chunks = [HeadShare(0, 0, 16)], [Chunk(0, 90)]
    for piece, said in ((0, "piece_tokens: 0 must"), (24, "piece_tokens: 24 does not divide")):
        with pytest.raises(AttentionError, match=said):
            prepare(shares, chunks, 64, piece_tokens=piece)
    strided = [HeadShare(0, 0, 16, pattern=Rule.strided(1, 2))]
    with pytest.raises(AttentionError, match=r"shares\[0\].pattern: strided blocks are square"):
        prepare(strided, chunks, 64, piece_tokens=16)
