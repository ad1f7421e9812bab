"""How plans and what they are for are named to people."""

from solver.plans import Plan


def method_of(plan: Plan) -> str:
    """How a plan was made, as `comparison.METHODS` names it."""
    return "divided" if plan.rules.divisible else plan.solver


def problem_of(plan: Plan) -> str:
    """What a method was given, within one comparison: `8 x disaggregated`."""
    return f"{len(plan.devices)} x {plan.workload.deployment}"


def heading(plan: Plan) -> str:
    """What is predicted: profile, workload and device types."""
    label = " (synthetic)" if plan.profile.synthetic else ""
    step = plan.workload
    return (
        f"{plan.profile.name}{label}, {step.phase} of {step.batch_size} x "
        f"{step.context_tokens:,} tokens{pieces_of(plan)} on {', '.join(plan.device_types)}: "
        "predicted"
    )


def pieces_of(plan: Plan) -> str:
    """Both sizes where they differ."""
    step = plan.workload
    if step.piece_tokens == step.block_tokens:
        return ""
    return f", blocks of {step.block_tokens} over pieces of {step.piece_tokens}"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"
