"""Initial weights that lean to what retrieval needs: a look at the token before, and at likeness.

From plain random weights the circuit for in-context retrieval (a previous-token head and a head
that matches it, Olsson et al. 2022, arXiv 2209.11895) did not form within 3.3 million tokens here.
So half of layer 0's heads begin with a bias to the previous token, and queries and keys of the
later layers begin alike, so that a token first attends to tokens like itself (mimetic
initialisation, Trockman and Kolter 2023, arXiv 2305.09828). Nothing is frozen.
"""

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

DEVIATION = 0.07
"""About hidden_size ** -0.5: activations keep their size from layer to layer."""
CONSTANT = 0.3
"""What every embedding has in its first element: something to attend by that no token changes."""
BIAS = 0.5
QUIET = 0.3
NOISE = 0.02
FAST_PAIRS = 8
"""Rotating pairs fast enough to tell neighbours apart."""


@torch.no_grad()
def initialise(model: LlamaForCausalLM) -> None:
    """Draw all matrices anew from torch's generator, then set the biases above."""
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=DEVIATION)
    config = model.config
    dim, groups = config.head_dim, config.num_key_value_heads
    of_a_group = config.num_attention_heads // groups
    model.model.embed_tokens.weight[:, 0] = CONSTANT
    for index, layer in enumerate(model.model.layers):
        queries = layer.self_attn.q_proj.weight.view(groups, of_a_group, dim, -1)
        keys = layer.self_attn.k_proj.weight.view(groups, dim, -1)
        if index == 0:
            for group in range(groups // 2):
                _look_one_back(queries[group], keys[group])
        else:
            queries.copy_(keys[:, None] + NOISE * torch.randn_like(queries))


def _look_one_back(queries: Tensor, keys: Tensor) -> None:
    """Constant parts whose product under RoPE is greatest one token back."""
    half = keys.shape[0] // 2
    speed = 10_000.0 ** (-torch.arange(half) / half)
    part = torch.where(torch.arange(half) < FAST_PAIRS, BIAS, 0.0)
    queries.mul_(QUIET)
    keys.mul_(QUIET)
    queries[:, :half, 0], queries[:, half:, 0] = part, 0.0
    keys[:half, 0], keys[half:, 0] = part * torch.cos(speed), part * torch.sin(speed)
