"""Whole dense heads by PyTorch's own attention kernel, cuDNN's on a GPU, with its log-sum-exp.

Heads that attend to everything need no lists, and cuDNN's is the fastest dense kernel that PyTorch
brings for Hopper. No GPU has run this here: that it pays is an expectation (1.3x on these heads,
from published figures), so that only who asks for it (`prepare(..., sdpa=True)`) gets it, and an
executor measures both ways before it keeps one.

cuDNN builds an execution plan for every new shape; others measured 0.4 s (sglang#4650 on an H20,
FunASR#3704 on a B200). One call a KV group keeps shapes few: as many a prompt's length as there are
numbers of dense heads in a group. Run a step once before a CUDA graph captures it.
"""

import warnings
from dataclasses import dataclass

import torch
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention

from executor.kernels.batch import Cache, Pair
from executor.kernels.layout import Layout

Shape = tuple[object, ...]

_refused: set[Shape] = set()
"""Shapes that PyTorch did not compute: said once, not tried again."""


@dataclass(frozen=True)
class WholePrompt:
    """Query heads of a KV group that attend to all of a prompt of which nothing is cached.

    Its tokens are q's [first, first + tokens).
    """

    heads: tuple[int, ...]
    group: int
    sequence: int
    first: int
    tokens: int


@dataclass(frozen=True, eq=False)
class Apart:
    """A layout's whole dense heads, and the layout of the others, which is None without any.

    Lists of every piece store no indices: both layouts read the same ones.
    """

    dense: tuple[WholePrompt, ...]
    others: Layout | None


def dense_attention(
    q: torch.Tensor,
    cache: Cache,
    dense: tuple[WholePrompt, ...],
    out: torch.Tensor,
    lse: torch.Tensor,
) -> bool:
    """Attention of q [heads, new tokens, head_dim] to all keys, in the rows of `dense`.

    Writes out, like q, and lse fp32 [heads, new tokens], natural log, and returns True; or False
    where PyTorch has no kernel or no memory for a shape, which it says once: the rows are then to
    be computed otherwise. A group's K and V are gathered first: pages and any strides will do, and
    nothing waits for the device.
    """
    for prompt in dense:
        shape = (q.device, q.dtype, q.shape[2], prompt.tokens, len(prompt.heads))
        if shape in _refused:
            return False
        new = slice(prompt.first, prompt.first + prompt.tokens)
        try:
            queries = torch.stack([q[head, new] for head in prompt.heads])
            keys, values = (_tokens(x, cache, prompt) for x in (cache.keys, cache.values))
            result, row_lse = causal(queries[None], keys[None, None], values[None, None])
        except RuntimeError as error:
            _refused.add(shape)
            warnings.warn(
                f"PyTorch's attention refuses {len(prompt.heads)} heads x {prompt.tokens} tokens "
                f"of {q.dtype}, so that the executor's own kernel computes them: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        row_lse = row_lse.view(len(prompt.heads), prompt.tokens)
        for head, rows, each in zip(prompt.heads, result[0], row_lse, strict=True):
            out[head, new] = rows
            lse[head, new] = each
    return True


def causal(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Pair:
    """Causal attention of q [1, heads, tokens, head_dim] to keys, values [1, 1, tokens, head_dim].

    Output like q and log-sum-exp [1, heads, tokens], on a GPU [1, heads, tokens, 1], natural log.
    Raises RuntimeError where there is no kernel.
    """
    if not q.is_cuda:
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, keys, values, is_causal=True
        )
        return found[0], found[1]
    # What scaled_dot_product_attention asks before it calls the operator, which does not: of fp32
    # it would read the bits as halves.
    if not can_use_cudnn_attention(SDPAParams(q, keys, values, None, 0.0, True, True)):
        raise RuntimeError("cuDNN does not take such tensors")
    return cudnn(q, keys, values)


def cudnn(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Pair:
    """cuDNN's kernel, which reads a group's K and V once for all its heads.

    Its log-sum-exp is that of the scaled scores, natural: PyTorch's ring attention merges parts by
    it as by those of the other kernels.
    """
    found = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, keys, values, None, True, 0.0, True
    )
    return found[0], found[1]


def _tokens(x: torch.Tensor, cache: Cache, prompt: WholePrompt) -> torch.Tensor:
    """The prompt's keys or values, [tokens, head_dim]."""
    if cache.pages is not None:
        pages = cache.pages[prompt.sequence, : -(-prompt.tokens // cache.page_tokens)]
        return x[:, prompt.group].index_select(0, pages).flatten(0, 1)[: prompt.tokens]
    assert cache.starts is not None
    places = torch.arange(prompt.tokens, dtype=torch.int32, device=x.device)
    return x[prompt.group].index_select(0, places + cache.starts[prompt.sequence])
