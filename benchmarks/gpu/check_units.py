"""What the checks' processes are, the most valuable first; read by the parent without torch."""

from collections.abc import Mapping

from benchmarks.gpu.rows import Row, Sections

SETTINGS = tuple(
    f"{dtype}-d{head_dim}-{tile}"
    for dtype, head_dim, tile in (
        ("bf16", 128, "64x64"),
        # Pieces that lists are to be made of, the headline's longer blocks, both, and then
        # everything else that is served.
        ("bf16", 128, "64x16"),
        ("bf16", 128, "128x128"),
        ("bf16", 128, "128x64"),
        ("bf16", 128, "128x16"),
        ("fp16", 128, "64x64"),
        ("fp16", 128, "128x128"),
        ("bf16", 64, "64x64"),
        ("bf16", 64, "128x128"),
        ("bf16", 256, "64x64"),
        ("bf16", 256, "128x128"),
        ("fp16", 64, "64x64"),
        ("fp16", 64, "128x128"),
        ("fp16", 256, "64x64"),
        ("fp16", 256, "128x128"),
    )
)
"""Type, head_dim, and tokens of a query block and of a piece of keys."""
TINY_SETTINGS = ("fp32-d16-16x16", "fp32-d16-32x16")
"""fp32 is what the interpreter computes in; on a GPU no model is served in it."""
PREFILL, POINTERS, REST = "prefill", "pointers", "rest"
"""Parts of the first setting, each in a process of its own: where tensor descriptors (TMA) break
their process, the same prefill by pointers still tells whether it works, and so does the rest."""
TWINS = ("prefill contiguous", "prefill paged")
"""Cases that both PREFILL and POINTERS have."""


def units(tiny: bool) -> list[str]:
    """Names of the checks' sections, as their processes start."""
    first, *others = TINY_SETTINGS if tiny else SETTINGS
    return [f"check-{x}" for x in [*(f"{first}-{p}" for p in (PREFILL, POINTERS, REST)), *others]]


def tma_trouble(sections: Sections) -> str | None:
    """Why prefill must go without tensor descriptors; None where they work, or nothing tells.

    They are what fails where a case goes wrong, ends its process or hangs, whose twin by pointers
    is fine.
    """
    by_part: dict[str, Mapping[str, Row]] = {}
    for part in (PREFILL, POINTERS):
        found = [s for name, s in sections.items() if _is_first(name, part)]
        if not found:
            return None
        by_part[part] = {row["case"].partition(" ")[2]: row for row in found[0]["rows"]}
    for case in TWINS:
        with_tma = by_part[PREFILL].get(case, {"error": "did not come back"})
        without = by_part[POINTERS].get(f"{case} by pointers", {})
        if without.get("ok") and not with_tma.get("ok"):
            why = {key: value for key, value in with_tma.items() if key not in ("case", "trace")}
            return f"{case}: {str(why)[:300]}; by pointers it is fine"
    return None


def _is_first(name: str, part: str) -> bool:
    return name in (f"check-{SETTINGS[0]}-{part}", f"check-{TINY_SETTINGS[0]}-{part}")
