"""Proofs on instances with known optima, speed, deadlines, and plans that drift."""

from statistics import median

from benchmarks.results_page.reports import Report, Reports, grid, grouped, percent, share, span


def section(reports: Reports) -> str:
    return f"""\
## Proofs and speed

{_partition(reports)}
{_speed(reports)}
{_deadlines(reports)}
{_drift(reports)}
"""


def _partition(reports: Reports) -> str:
    report = reports["partition"]
    rows = []
    for family, alike in grouped(report["rows"], _family).items():
        rows.append(
            (
                family,
                str(len(alike)),
                *(str(sum(row[name] for row in alike)) for name in ("found", "proved", "near")),
                f"{median(row['seconds'] for row in alike):.2f}",
                f"{max(row['seconds'] for row in alike):.2f}",
            )
        )
    total = report["summary"]
    rows.append(
        (
            "all",
            *(str(total[name]) for name in ("instances", "found", "proved", "near")),
            f"{median(row['seconds'] for row in report['rows']):.2f}",
            f"{max(row['seconds'] for row in report['rows']):.2f}",
        )
    )
    heads = (
        "jobs' lengths",
        "instances",
        "optimum found",
        "proved",
        "near",
        "s, median",
        "s, most",
    )
    return f"""\
### Published makespan instances

Jobs on identical machines (the França/Frangioni classes: `U` uniform, `NU` not, lengths up to 100,
1,000 and 10,000), {report["time_limit_s"]:g} s each; `near` is within one unit or 0.1 % of the
optimum. The optima judge and are not shown to the solver. The subset sums' settings are those of an
earlier search that was tuned on these instances: to that extent the figures are in-sample.

{reports.source("partition")}
{grid(heads, rows)}"""


def _family(row: Report) -> str:
    return str(row["name"]).rsplit("_", 3)[0]


def _speed(reports: Reports) -> str:
    report = reports["speed"]
    rows = []
    for case, alike in grouped(report["rows"], lambda row: row["case"]).items():
        reached = [
            f"{row['over_mean']:.4f} of the mean" if "over_mean" in row else percent(row["gap"])
            for row in alike
        ]
        told = reached[0] if len(set(reached)) == 1 else f"{min(reached)} to {max(reached)}"
        seconds = span([row["seconds"]["median"] for row in alike], ".3f")
        rows.append((case, str(len(alike)), told, seconds))
    heads = ("case", "seeds", "gap", "s, medians")
    return f"""\
### Seconds to a proof

80 layers x 64 heads on 8 devices unless the case says otherwise, until within 1 % of a proved
bound; supernodes in the time asked and within 5 % of the mean load (in 2 s, within half); unlike
devices in the time asked; `auto` within 50 ms where greedy is already within the tolerance. Aims
met: {share(report["summary"])}.

{reports.source("speed")}
{grid(heads, rows)}"""


def _deadlines(reports: Reports) -> str:
    report = reports["deadlines"]
    rows = []
    for row in report["rows"]:
        soon = row["after_cancel_s"]
        cancelled = _milliseconds(soon) if soon else "done before"
        rows.append((row["case"], _milliseconds(row["beyond_limit_s"]), cancelled))
    heads = ("request", "ms beyond the limit", "ms from cancel to plan")
    return f"""\
### Deadlines

32 layers x 32 heads on 8 devices, {report["limit_s"]:g} s allowed, or cancelled on the way; below 0
means ended before the limit. Medians, least and most in brackets. The aim, a plan within 50 ms of
the cancel, is met in {share(report["aim"])}.

{reports.source("deadlines")}
{grid(heads, rows)}"""


def _milliseconds(seconds: Report) -> str:
    middle, least, most = (f"{1e3 * seconds[name]:.0f}" for name in ("median", "least", "most"))
    return f"{middle} ({least} to {most})"


def _drift(reports: Reports) -> str:
    report = reports["drift"]
    summary = report["summary"]
    rows = [
        (told, share(summary[name]))
        for name, told in (
            (
                "workloads_keep_up",
                "made for half of all tasks' requests, judged on the others: never worse",
            ),
            ("workloads_keep_up_across_tasks", "made for one task, judged on another: never worse"),
            ("hedged_keeps_up", "either, with an even workload beside them: never worse"),
            (
                "near_hindsight",
                "planned again after 8 requests of another task: within 3 % of hindsight",
            ),
            ("hindsight_proved", "hindsight, the best fixed plan: proved optimal"),
        )
    ]
    lost = [
        f"- {row['profile']}, {row['gpus']} GPUs, planned on {row['planned_on']}, judged on "
        f"{row['judged_on']}: {percent(row['mean_over_contiguous']['workloads'] - 1, 1)} worse "
        "than contiguous"
        for row in report["rows"]
        if not row["keeps_up"]
    ]
    return f"""\
### Plans for some requests, judged on others

TANGRAM's kept tokens per request, {report["phase"]} of {report["batch_size"]} sequences, 2, 4 and 8
GPUs; worse means a greater mean makespan over the judged requests than contiguous placement's.
Every request is a workload. The even workload's weight was chosen on these data; requests of a task
are nearly alike, which flatters the first and the fourth row.

{reports.source("drift")}
{grid(("claim", "holds in"), rows)}
{_listed("A frozen plan can lose: plan for several tasks, and keep measuring.", lost)}"""


def _listed(told: str, lines: list[str]) -> str:
    return f"{told}\n\n" + "\n".join(lines) + "\n" if lines else ""
