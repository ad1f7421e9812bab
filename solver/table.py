"""Plans and comparisons as rich tables."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from solver.compare import Row, by_problem
from solver.plan import Plan


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def heading(plan: Plan) -> str:
    """What is predicted: profile, workload and device types."""
    label = " (synthetic)" if plan.profile.synthetic else ""
    step = plan.workload
    return (
        f"{plan.profile.name}{label}, {step.phase} of {step.batch_size} x "
        f"{step.context_tokens:,} tokens on {', '.join(plan.device_types)}: predicted"
    )


def comparison_table(rows: list[Row]) -> Table:
    """One line a method, grouped by GPU count and deployment; all of one profile and workload."""
    table = Table(
        title=heading(rows[0].plan),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    table.add_column("method", no_wrap=True)
    for column in ("ms", "/ bound", "bubble %", "copies", "gap %", "solve s"):
        table.add_column(column, justify="right", no_wrap=True)
    for problem, members in by_problem(rows).items():
        table.add_section()
        table.add_row(f"[bold]{problem}[/]")
        for row in members:
            table.add_row(
                row.plan.solver,
                milliseconds(row.plan.makespan_s),
                f"{row.over_bound:.4f}",
                f"{100 * row.plan.bubble_ratio:.2f}",
                str(sum(row.plan.kv_copies)),
                f"{100 * (1 - row.bound_s / row.plan.makespan_s):.2f}",
                f"{row.plan.solve_s:.2f}",
            )
    return table


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
        f"{step.deployment}",
        "solver": f"{plan.solver}, {plan.solve_s:.2f} s, {plan.status}",
        "makespan": f"{milliseconds(plan.makespan_s)} ms, at least "
        f"{milliseconds(plan.lower_bound_s)} ms (gap {percent(plan.gap)})",
        "bubble": percent(plan.bubble_ratio),
        "imbalance": imbalance,
        "K/V copies": f"{sum(plan.kv_copies)} over {len(plan.layers)} layers",
        "K/V bytes": f"{min(plan.kv_bytes):,} to {max(plan.kv_bytes):,} a device",
        "stock engine": f"{stock}: {plan.stock_reason}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
