"""Whether HPLB is worth it, in sentences: the answer first, then what it rests on."""

from collections.abc import Iterator, Sequence

from profiles.catalogue import catalogue_rates
from profiles.heads import CurvesForm
from solver.report.stock_base import StockBase
from solver.report.worth import Worth


def verdict(found: Worth) -> Sequence[str]:
    """The answer in sentences."""
    return [
        _answer(found),
        *_refused(found),
        _break_even(found),
        _quality(found),
        *_basis(found),
    ]


def base_named(base: StockBase) -> str:
    """`a stock engine`, or how many of what size stand side by side."""
    if base.replicas == 1:
        return "a stock engine"
    ranks = "1 rank" if base.ranks == 1 else f"{base.ranks} ranks"
    return f"{base.replicas} stock engines of {ranks} side by side"


def _answer(found: Worth) -> str:
    total, words = found.total, {"yes": "yes", "little": "hardly", "no": "no"}[found.answer]
    more = "more" if total.gain >= 0 else "less"
    if found.unmeasured:
        words += f", by the data sheet of {found.setting.device_type}, unmeasured"
    return (
        f"{words}: {100 * abs(total.gain):.1f} % {more} of this traffic in the same time than "
        f"{base_named(found.base)}, where "
        f"attention takes {100 * total.attention_share:.1f} % of the time"
    )


def _refused(found: Worth) -> Iterator[str]:
    """That stock engines cannot run all devices as one group, and what padding for it costs."""
    if found.base.replicas == 1:
        return
    shape, padding = found.setting.profile.architecture, found.total.by_padding
    yield (
        f"stock engines refuse {found.setting.gpus} ranks, by which {shape.query_heads} query and "
        f"{shape.kv_heads} KV heads do not divide; side by side each must hold the whole model. "
        f"Padding for all ranks {'loses' if padding < 0 else 'gains'} {100 * abs(padding):.1f} %"
    )


def _break_even(found: Worth) -> str:
    if found.break_even_tokens is None:
        return (
            "no plan made for prompts of one length alone gains 1 %, up to "
            f"{found.tried_to_tokens:,} tokens"
        )
    return (
        "a plan made for prompts of one length alone gains 1 % or more from about "
        f"{found.break_even_tokens:,} tokens on, choosing pieces included"
    )


def _quality(found: Worth) -> str:
    if found.dense:
        return "every head is dense in all of these steps, so that budgets cost nothing"
    longest = max(row.of.context_tokens for row in found.rows)
    budgets = f"the budgets, one number of tokens a head for up to {longest:,}"
    if found.loss is None:
        return (
            f"what {budgets}, cost in quality is not known: measure the model with `hplb profiles "
            "measure` and `hplb calibrate`"
        )
    return f"{budgets}, are predicted to cost at most {found.loss:.3f} nats a token"


def _basis(found: Worth) -> Iterator[str]:
    """What the seconds and the budgets were taken from, where that is not this very case."""
    setting, steps = found.setting, [row.of for row in found.rows]
    kind = setting.device_type
    longest = max(step.context_tokens for step in steps)
    for phase in dict.fromkeys(step.phase for step in steps):
        fitted = catalogue_rates([kind], phase)[kind].fitted_to_tokens
        if phase in found.unmeasured:
            yield f"{phase} seconds come from the data sheet of {kind}, unmeasured"
        elif fitted is not None and fitted < longest:
            yield f"{phase} rates of {kind} were fitted up to {fitted:,} tokens"
    heads = setting.profile.heads
    if isinstance(heads, CurvesForm):
        measured = heads.context_tokens
        if not measured[0] <= longest <= measured[-1]:
            yield (
                f"the profile was measured from {measured[0]:,} to {measured[-1]:,} tokens; "
                f"budgets for {longest:,} are taken as the same shares of the context"
            )
