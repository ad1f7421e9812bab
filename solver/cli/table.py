"""Plans, comparisons and advice as rich tables."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from solver.plans import Plan
from solver.report.comparison import COLUMNS, Row, by_problem, cells
from solver.report.explain import Explanation
from solver.report.naming import heading, milliseconds, percent, pieces_of
from solver.report.stages import Stages
from solver.report.verdict import base_named
from solver.report.worth import Worth


def comparison_table(rows: list[Row]) -> Table:
    """One line a method, grouped by GPU count and deployment; all of one profile and workload."""
    table = Table(
        title=heading(rows[0].plan),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    _, method, *figures = COLUMNS
    table.add_column(method, no_wrap=True)
    for column in figures:
        table.add_column(column, justify="right", no_wrap=True)
    for problem, members in by_problem(rows).items():
        table.add_section()
        table.add_row(f"[bold]{problem}[/]")
        for row in members:
            table.add_row(*cells(row)[1:])
    return table


def worth_table(found: Worth) -> Table:
    """One line for steps alike, and one for all; gains are over the column before."""
    setting = found.setting
    label = " (synthetic)" if setting.profile.synthetic else ""
    table = Table(
        title=f"{setting.profile.name}{label} on {setting.gpus} x {setting.device_type}: predicted "
        f"whole step of {base_named(found.base)}, and what one plan gains of it by padding, "
        f"budgets, placement and slots ({found.slots} a device, at least {found.least_slots}: "
        f"{100 * found.kv_share:.0f} % of the K/V room is left)",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
    )
    table.add_column("step", no_wrap=True)
    gains = ("pad %", "budgets %", "placed %", "slots %")
    for column in ("reqs", "attn %", "stock ms", *gains, "loss"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found.rows:
        requests = "-" if row.of.requests is None else f"{row.of.requests:,}"
        batch = "" if row.of.batch_size == 1 else f"{row.of.batch_size} x "
        name = f"{row.of.phase} {batch}{row.of.context_tokens:,}"
        stock = milliseconds(row.stages.stock_s)
        table.add_row(name, requests, *_gains(row.stages, stock), _loss(row.loss))
    table.add_section()
    table.add_row("all", "", *_gains(found.total, ""), _loss(found.loss))
    return table


def _gains(stages: Stages, stock: str) -> list[str]:
    gains = (stages.by_padding, stages.by_budgets, stages.by_placement, stages.by_slots)
    # What rounds to nothing is neither gained nor lost.
    shown = [f"{round(100 * gain, 1) + 0.0:+.1f}" for gain in gains]
    return [f"{100 * stages.attention_share:.1f}", stock, *shown]


def _loss(nats: float | None) -> str:
    return "-" if nats is None else f"{nats:.3f}"


def plan_table(plan: Plan) -> Table:
    """A plan's figures, one a line."""
    table = Table(title=f"plan {plan.id[:16]}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    synthetic = " (synthetic)" if plan.profile.synthetic else ""
    devices = ", ".join(f"{plan.devices.count(t)} x {t}" for t in plan.device_types)
    step = plan.workload
    imbalance = "unlike devices" if plan.imbalance is None else f"{plan.imbalance:.4f}"
    stock = "yes" if plan.stock_compatible else "no"
    rows = {
        "profile": f"{plan.profile.name}{synthetic}",
        "devices": devices,
        "workload": f"{step.phase}, {step.batch_size} x {step.context_tokens:,} tokens, "
        f"{step.deployment}{pieces_of(plan)}",
        "solver": f"{plan.solver}, {plan.solve_s:.2f} s, {plan.status}",
        "whole step": _whole_step(plan),
        _objective(plan): f"{milliseconds(plan.makespan_s)} ms, at least "
        f"{milliseconds(plan.lower_bound_s)} ms (gap {percent(plan.gap)})",
        "bubble": percent(plan.bubble_ratio),
        "imbalance": imbalance,
        "K/V copies": f"{sum(plan.kv_copies)} over {len(plan.layers)} layers",
        "K/V, all keys": f"{min(plan.kv_bytes):,} to {max(plan.kv_bytes):,} bytes a device",
        "stock engine": f"{stock}: {plan.stock_reason}",
    }
    rows |= _extras(plan)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _whole_step(plan: Plan) -> str:
    """What share of it attention is, and what the placement gains of it."""
    whole = plan.whole_step
    if whole is None:
        return "unknown"
    return (
        f"{milliseconds(whole.step_s)} ms, with heads in order "
        f"{milliseconds(whole.contiguous_step_s)} ms, of which attention "
        f"{100 * whole.attention_share:.1f} %: it {whole.gained}"
    )


def _objective(plan: Plan) -> str:
    if not plan.other_workloads:
        return "makespan"
    return "worst makespan" if plan.rules.objective == "worst" else "mean makespan"


def _weight(plan: Plan) -> str:
    """Under the worst case the weights are those that prove the bound, not the request's."""
    return "multiplier" if plan.rules.objective == "worst" else "weight"


def _extras(plan: Plan) -> dict[str, str]:
    """What only some plans have."""
    rows = {}
    if plan.recovery is not None:
        found = plan.recovery
        rows[f"recovery, {found.curve}"] = (
            f"mean {sum(found.mean) / len(found.mean):.4f}, least of a head {min(found.least):.4f}"
        )
    if plan.loss is not None:
        loss = plan.loss
        rows["predicted loss"] = (
            f"{loss.nats:.4f} nats a token ({loss.low:.4f} to {loss.high:.4f}), at most "
            f"{loss.bound:g}"
        )
    if plan.budget_gap is not None:
        least = "the least error" if plan.loss is None else "the least total"
        rows["budgets"] = f"proved within {100 * plan.budget_gap:.2g} % of {least}"
    if plan.rules.divisible:
        rows["divisions"] = f"{sum(plan.divisions)} over {len(plan.layers)} layers"
    if plan.padding is not None:
        padding = plan.padding
        rows["KV slots"] = (
            f"{plan.slots} a device, {padding.least_slots} hold every KV group; those beyond take "
            f"{percent(padding.padding_s / plan.makespan_s)} of the makespan and "
            f"{percent(1 - padding.kv_share)} of the K/V tokens that fit"
        )
        if padding.others:
            rows["other slots"] = ", ".join(
                f"{other.slots}: {milliseconds(other.makespan_s)} ms" for other in padding.others
            )
    for other in plan.other_workloads:
        step = other.workload
        rows[f"{step.phase}, {step.batch_size} x {step.context_tokens:,}"] = (
            f"{milliseconds(other.makespan_s)} ms, {_weight(plan)} {other.weight:.3f}"
        )
    if plan.nodes is not None:
        nodes = plan.nodes
        rows["nodes"] = (
            f"{nodes.replicas} of {nodes.size} devices, {sum(nodes.cross_node_copies)} K/V copies "
            "across nodes"
        )
        rows["instead"] = (
            f"{nodes.replicas} replicas on {nodes.size} devices each: a step takes "
            f"{milliseconds(nodes.replica_makespan_s)} ms, {nodes.replicas} steps at a time; here "
            f"they take {milliseconds(nodes.replicas * plan.makespan_s)} ms"
        )
    if plan.memory is not None:
        held = [w + k for w, k in zip(plan.memory.weight_bytes, plan.memory.kv_bytes, strict=True)]
        rows["memory"] = f"{min(held):,} to {max(held):,} bytes of {min(plan.memory.limit_bytes):,}"
    if plan.moving is not None:
        moving = plan.moving
        verdict = "kept as it is" if moving.kept else f"{moving.bytes:,} bytes moved"
        rows["current plan"] = (
            f"{verdict}; {milliseconds(moving.seconds)} ms once, gain "
            f"{milliseconds(moving.gain_s)} ms a step"
        )
    if plan.filled is not None:
        before, after = plan.filled.recovery_mean
        rows["bubble filled"] = (
            f"{plan.filled.added_tokens:,} tokens: mean recovery {before:.4f} to {after:.4f}"
        )
    if plan.elsewhere is not None:
        elsewhere = plan.elsewhere
        rows[f"under {elsewhere.deployment}"] = (
            f"this placement {milliseconds(elsewhere.makespan_s)} ms, one made for it at most "
            f"{milliseconds(elsewhere.replanned_s)} ms"
        )
    return rows


def explain_table(layers: list[Explanation]) -> Table:
    """One line a layer: how far it is proved, what its least head recovers, and what binds it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    recovers = any(layer.least_recovery is not None for layer in layers)
    least = ("least recovery",) if recovers else ()
    for column in ("layer", "ms", "gap %", "parts", "copies", *least):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("proof")
    table.add_column("what binds")
    for layer in layers:
        table.add_row(
            str(layer.layer),
            milliseconds(layer.makespan_s),
            f"{100 * layer.gap:.2f}",
            str(layer.divisions),
            str(layer.kv_copies),
            *([] if layer.least_recovery is None else [f"{layer.least_recovery:.4f}"]),
            layer.proof,
            layer.binds,
        )
    return table
