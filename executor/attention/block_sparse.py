"""The attention of one device's share of a step: select keys, compute, whatever the phase.

step = prepare(shares, chunks, block_tokens, device)   # once for a plan and its lengths
result = attend(q, cache, step)                        # as often as one likes
"""

import os
from dataclasses import dataclass

import torch

from executor.attention.backends import Backend, resolve_backend
from executor.attention.counts import Counts, Schedule
from executor.attention.step import PreparedStep, tables
from executor.checks import check_backend, check_options, check_tensors
from executor.kernels.batch import Cache
from executor.kernels.bounds import page_bounds
from executor.kernels.decode_layout import DecodeLists
from executor.kernels.dense import dense_attention
from executor.kernels.implementation import implementation
from executor.kernels.layout import Layout
from executor.kernels.recovery import decode_recovery, recovery
from executor.kernels.select import select
from executor.kernels.select_decode import select_decode

NO_LSE = torch.empty(0)
"""`AttentionResult.lse` where nobody reads it."""


@dataclass(frozen=True, eq=False)
class AttentionResult:
    """out like q and lse [heads, new tokens], natural log, fp32; empty where `run` was told that
    nobody reads it.

    Rows that no share computes are 0 in `out` and -inf in `lse`: what a merge by log-sum-exp
    leaves out. `kv_bytes` are the bytes of K and V that all programs read. `indices` and `lists`
    are the chosen pieces of prefill and decode. `recovery` is the share of attention that the lists
    captured on a few sampled rows, fp32 [entries of prefill, then of decode], where asked for.
    """

    out: torch.Tensor
    lse: torch.Tensor
    counts: Counts
    schedule: Schedule
    kv_bytes: int
    indices: torch.Tensor | None
    lists: DecodeLists | None
    recovery: torch.Tensor | None


@torch.no_grad()
def attend(
    q: torch.Tensor,
    cache: Cache,
    step: PreparedStep,
    backend: str = "auto",
    *,
    bounds: torch.Tensor | None = None,
    sms: int | None = None,
    watched_rows: int = 0,
) -> AttentionResult:
    """Causal attention of q [heads, new tokens, head_dim] to `cache`, as the prepared `step` says.

    q's tokens are the chunks' new ones, chunk after chunk; logits are q k / sqrt(head_dim). Every
    head chooses the keys of its budget from these tensors: nothing is read back, and nothing waits
    for the device. `backend` is triton (CUDA), torch (CPU), or auto for the one that fits q.

    `bounds` are the pages' that decoding heads choose by (`kernels.bounds.page_bounds`); not given,
    they are computed from every key. `sms` runs prefill and decode as so many programs, so
    that another step finds multiprocessors free (Nexus, arXiv 2507.06608); selection is not held
    back. Heads that the step has apart go to PyTorch's own attention on the triton back end, except
    where `sms` are given, which it would not keep to. A step of prompts and decodes computes the
    prompts and then the decodes, in launches of their own. With `watched_rows` the recovery of so
    many query rows an entry is measured exactly. Raises AttentionError where the arguments do not
    fit each other, UnknownNameError for a back end nobody has heard of.
    """
    chosen = resolve_backend(backend, q.device)
    check_tensors(q, cache, step, bounds)
    check_backend(q, step, chosen)
    check_options(sms, watched_rows)
    return run(q, cache, step, chosen, bounds=bounds, sms=sms, watched_rows=watched_rows)


def run(
    q: torch.Tensor,
    cache: Cache,
    step: PreparedStep,
    backend: Backend,
    *,
    bounds: torch.Tensor | None = None,
    sms: int | None = None,
    watched_rows: int = 0,
    lse_read: bool = True,
) -> AttentionResult:
    """As `attend`, of arguments that fit each other.

    Decodes on a CPU compute no lse where it is not `lse_read`.
    """
    _await_tables(step, q.device)
    kernels = implementation(backend == "triton")
    # What a CPU has no use for.
    options = {"sms": sms} if backend == "triton" else {}
    loads = {"tma": allowed_tma()} if backend == "triton" else {}
    every_row = step.covers and q.shape[0] == step.heads
    out = torch.empty_like(q) if every_row else torch.zeros_like(q)
    no_lse = backend == "torch" and step.prefill is None and not (lse_read or watched_rows)
    lse = NO_LSE if no_lse else q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)
    indices = lists = None
    watched = []
    if step.prefill is not None:
        indices = select(q, cache, step.prefill)
        layout: Layout | None = step.prefill
        apart = step.apart if backend == "triton" and sms is None else None
        if apart is not None and dense_attention(q, cache, apart.dense, out, lse):
            layout = apart.others
        if layout is not None:
            kernels.prefill_attention(q, cache, layout, indices, out, lse, **options, **loads)
        if watched_rows:
            watched.append(recovery(q, cache, step.prefill, lse, watched_rows))
    if step.decode is not None:
        if bounds is None:
            bounds = page_bounds(cache, step.context_tokens, step.piece_tokens)
        lists = select_decode(q, bounds, cache, step.decode, step.context_tokens)
        kernels.decode_attention(
            q,
            cache,
            step.decode,
            lists,
            step.context_tokens,
            out,
            None if no_lse else lse,
            **options,
        )
        if watched_rows:
            watched.append(decode_recovery(q, cache, step.decode, step.context_tokens, lse))
    captured = torch.cat(watched) if watched else None
    piece_bytes = step.piece_tokens * q.shape[2] * q.element_size()
    kv_bytes = 2 * step.schedule.kv_pieces * piece_bytes
    return AttentionResult(out, lse, step.counts, step.schedule, kv_bytes, indices, lists, captured)


def _await_tables(step: PreparedStep, device: torch.device) -> None:
    """Let this stream wait for the tables that another one may still be copying, and keep their
    memory from others until it is done, should the step be dropped before.

    Not while a graph is captured: that begins with everything done, and what it reads must be kept.
    """
    if step.copied is None or torch.cuda.is_current_stream_capturing():
        return
    stream = torch.cuda.current_stream(device)
    stream.wait_event(step.copied)
    for table in tables(step):
        table.record_stream(stream)


def allowed_tma() -> bool | None:
    """False where HPLB_TMA=0 keeps prefill from tensor descriptors; None leaves it to the chip."""
    return False if os.environ.get("HPLB_TMA") == "0" else None
