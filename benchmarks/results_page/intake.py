"""How fast measurements come in, by nodes and database."""

from benchmarks.results_page.reports import Report, Reports, grid


def section(reports: Reports) -> str:
    cases = reports["ingest"]["cases"]
    lost, sent = (sum(case[name] for case in cases) for name in ("lost", "acknowledged"))
    return f"""\
## Measurements coming in

Nodes of one device, 32 layers, each with a lease and a long poll, report to one planner on
loopback; a batch counts from when it was due until it is acknowledged. Of {sent:,} acknowledged
batches {lost} were not in the database afterwards. What that means for a fleet:
[scale.md](scale.md).

{reports.source("ingest")}
{grid(HEADS, [_row(case) for case in cases])}"""


HEADS = (
    "database",
    "nodes",
    "batches a second: due",
    "acknowledged",
    "p50, p99 ms",
    "`/readyz` p99 ms",
    "planner's core",
    "its memory MB",
    "bytes a batch stored",
)


def _row(case: Report) -> tuple[str, ...]:
    batch = case["batch_ms"]
    return (
        case["database"],
        f"{case['nodes']:,}",
        f"{case['wanted_per_second']:,.0f}",
        f"{case['per_second']:,.0f}",
        f"{batch['p50']:,.0f}, {batch['p99']:,.0f}",
        f"{case['ready_ms']['p99']:,.0f}",
        f"{100 * case['service_cpu_share']:.0f} %",
        f"{case['service_peak_mb']}",
        f"{case['database_bytes_a_batch']:,}",
    )
