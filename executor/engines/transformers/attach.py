"""Which policy a model's layers attend by."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol, runtime_checkable

from transformers import PreTrainedModel

from executor.engines.transformers.interface import NAME, Attachment, attachments
from executor.errors import AttentionError
from executor.inference.policy import Policy
from executor.inference.trace import Trace

_changing = Lock()
"""Held while `attachments` is written."""


@runtime_checkable
class Shaped(Protocol):
    """A policy for models of one shape."""

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and query heads."""
        ...


@contextmanager
def attached(model: PreTrainedModel, policy: Policy) -> Iterator[Trace]:
    """The model attends by `policy` within; what it computed is summed up in the trace."""
    trace = attach(model, policy)
    try:
        yield trace
    finally:
        detach(model)


def attach(model: PreTrainedModel, policy: Policy) -> Trace:
    """Make every attention layer of a causal model attend by `policy`, until it is detached.

    Models keep their policies apart, as long as they do not share a config. A model runs in one
    thread while a policy is attached, as its trace does; different models may run in different
    threads. A `cache.GrowingCache` spares decodes the copying of all keys. Raises AttentionError
    for a model that has a policy, whose attention cannot be replaced, or that the policy was not
    made for.
    """
    config = model.config
    if config.get_text_config() is not config:
        raise AttentionError(
            f"{type(model).__name__}: has other parts than text; attach to its language model"
        )
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    if isinstance(policy, Shaped) and policy.shape != (layers, heads):
        raise AttentionError(
            f"policy: is for {policy.shape[0]} layers and {policy.shape[1]} query heads; "
            f"{type(model).__name__} has {layers} and {heads}"
        )
    with _changing:
        taken = any(getattr(other, "config", None) is config for other in list(attachments))
    if taken:
        raise AttentionError(
            f"{type(model).__name__}: a policy is attached to it or to a model that shares its "
            "config: detach that first, or give the model a copy of the config"
        )
    before = config._attn_implementation
    model.set_attn_implementation(NAME)
    if config._attn_implementation != NAME:
        raise AttentionError(
            f"{type(model).__name__}: does not go through transformers' AttentionInterface"
        )
    trace = Trace(layers, heads)
    attachment = Attachment(policy, trace, before)
    with _changing:
        attachments.update((module, attachment) for module in model.modules())
    return trace


def detach(model: PreTrainedModel) -> None:
    """Give the model its own attention back. Raises AttentionError where no policy is attached."""
    if model not in attachments:
        raise AttentionError(f"{type(model).__name__}: no policy is attached")
    before = attachments[model].before
    with _changing:
        for module in model.modules():
            attachments.pop(module, None)
    model.set_attn_implementation(before)
