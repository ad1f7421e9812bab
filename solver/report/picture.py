"""A plan drawn: devices as rows, the heads they compute as blocks, and the time they wait.

The one picture of `hplb plan --plot`, of notebooks and of the service's page. Time runs to the
right; every layer ends in a barrier, and what a device does not fill of it is idle.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING

import numpy as np

from solver.planning.figures import bubble_ratio
from solver.planning.predict import planned_problem
from solver.plans import Plan
from solver.report.naming import heading, method_of, percent
from solver.report.svg import LETTER, Drawing, box
from solver.shares import Floats

if TYPE_CHECKING:
    from solver.report.comparison import Row

WIDTH, LEFT, RIGHT, MARGIN = 1000.0, 96.0, 78.0, 16.0
PLOT = WIDTH - LEFT - RIGHT
GAP = 0.7
"""Pixels between blocks that are wide enough to be told apart."""
MOST_TOLD = 2048
"""Cells of a (layer, device) that say what is in them under the pointer; more make files heavy."""
LEAST_SCALE = 0.1
"""The idle share of the heat map's full colour is at least this: little idle time looks little."""


@dataclass(frozen=True)
class Block:
    """What a device does of one head: its `share` of the rows, in `seconds`."""

    head: int
    share: float
    seconds: float


@dataclass(frozen=True)
class Cell:
    """One device in one layer: seconds before its heads, its heads, and in all."""

    charge_s: float
    blocks: Sequence[Block]
    load_s: float


Timeline = Sequence[Sequence[Cell]]
"""Cells, [layers][devices]."""


def plan_picture(plan: Plan, layer: int | None = None) -> str:
    """A plan as SVG: all its layers and the one that idles most; or that `layer` alone.

    Of several workloads, seconds are means by the plan's weights.
    """
    cells = _cells(plan)
    makespans = np.array([planned.makespan_s for planned in plan.layers])
    page = _Page(heading(plan))
    for words in _figures(plan):
        page.note(words)
    page.legend(plan)
    if layer is None and len(cells) > 1:
        rows = _rows(plan)
        words = "Layers one after the other; a barrier ends each."
        page.timeline("Every device, all layers", words, rows, cells, makespans, makespans.sum())
        loads = np.array([planned.loads_s for planned in plan.layers])
        page.heat_map(rows, 1 - loads / makespans[:, None])
    if layer is None:
        idle_s = [
            m * len(of) - sum(c.load_s for c in of) for m, of in zip(makespans, cells, strict=True)
        ]
        layer = int(np.argmax(idle_s))
        most = ", which idles most" if len(cells) > 1 else ""
    else:
        most = ""
    page.close_up(plan, layer, most, cells[layer])
    return page.svg()


def measured_picture(plan: Plan, layers: Sequence[int], loads_s: Floats, how: str) -> str:
    """What was measured of a plan's `layers` beside what was predicted of them, as SVG.

    loads_s [layers of the plan, devices] seconds, NaN where nothing was measured; `how` says of
    what they are.
    """
    predicted = [_cells(plan)[layer] for layer in layers]
    expected = np.array([max(cell.load_s for cell in of) for of in predicted])
    found = np.nan_to_num(loads_s[list(layers)])
    makespans = found.max(axis=1)
    scale_s = max(expected.sum(), makespans.sum())
    page = _Page(heading(plan).removesuffix("predicted") + "predicted and measured")
    page.note(
        f"makespan of {len(layers)} layers: predicted {_ms(expected.sum())}, measured "
        f"{_ms(makespans.sum())}, {makespans.sum() / expected.sum():.2f} times as long"
    )
    page.legend(plan)
    rows = _rows(plan)
    page.timeline("Predicted", "", rows, predicted, expected, scale_s)
    measured = [
        [Cell(0.0, [Block(-1, 1.0, load)] if load > 0 else [], load) for load in of] for of in found
    ]
    words = f"{how}; bubble {percent(bubble_ratio(found, makespans))}"
    page.timeline("Measured", words, rows, measured, makespans, scale_s)
    return page.svg()


def comparison_picture(title: str, problems: dict[str, list["Row"]]) -> str:
    """Methods beside each other as SVG: each device's busy and idle time, all layers."""
    page = _Page(title)
    page.note("All layers, a bar a device. Dotted: no placement by the method's rules ends before.")
    page.legend(None)
    for problem, rows in problems.items():
        page.methods(problem, rows)
    return page.svg()


def _cells(plan: Plan) -> Timeline:
    problem = planned_problem(plan).by_head()
    found = []
    for index, shares in enumerate(plan.placed):
        layer = problem.layer(index)
        whole_s = layer.blended_s[shares.item, shares.device]
        part_s = np.tensordot(layer.weights, layer.part_s[:, shares.item, shares.device], 1)
        seconds = part_s + (whole_s - part_s) * shares.share
        blocks: list[list[Block]] = [[] for _ in plan.devices]
        parts = (shares.device, shares.item, shares.share, seconds)
        for device, head, share, own_s in zip(*(part.tolist() for part in parts), strict=True):
            blocks[device].append(Block(head, share, own_s))
        busy_s = np.bincount(shares.device, seconds, shares.devices).tolist()
        cells = zip(plan.layers[index].loads_s, busy_s, blocks, strict=True)
        found.append([Cell(max(0.0, load - busy), own, load) for load, busy, own in cells])
    return found


def _figures(plan: Plan) -> Iterable[str]:
    types = ", ".join(f"{plan.devices.count(t)} x {t}" for t in plan.device_types)
    over = f", mean of {1 + len(plan.other_workloads)} workloads" if plan.other_workloads else ""
    yield (
        f"{types}, {plan.workload.deployment}, by {method_of(plan)}{over}: makespan "
        f"{_ms(plan.makespan_s)}, at least {_ms(plan.lower_bound_s)}; bubble "
        f"{percent(plan.bubble_ratio)}"
    )
    whole = plan.whole_step
    if whole is not None:
        yield (
            f"Attention is {100 * whole.attention_share:.1f} % of the step; with this placement "
            f"the step {whole.gained} over heads in the file's order"
        )
    if plan.padding is not None:
        slots = len(plan.layers) * len(plan.devices) * (plan.slots or 0)
        yield (
            f"{plan.slots} KV slots a device: {plan.padding.padded} of {slots} hold nothing, and "
            f"slots beyond {plan.padding.least_slots} take {_ms(plan.padding.padding_s)}"
        )


def _rows(plan: Plan) -> list[str]:
    return [f"{index} {kind}" for index, kind in enumerate(plan.devices)]


def _ms(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:,.0f} ms" if value >= 1000 else f"{value:#.4g} ms"


def _ticks(most: float) -> list[float]:
    """About six round numbers from 0 to `most`."""
    raw = most / 6
    size = 10 ** floor(log10(raw))
    step = next(size * f for f in (1, 2, 5, 10) if size * f >= raw)
    return [step * n for n in range(floor(most / step * (1 + 1e-9)) + 1)]


class _Page:
    """Panels below each other, as wide as the page."""

    def __init__(self, title: str) -> None:
        self._draw = Drawing(WIDTH)
        self._y = MARGIN
        self._told = [title]
        self._lines(title, "title", 16)

    def svg(self) -> str:
        return self._draw.svg(self._y, ". ".join(self._told))

    def note(self, words: str) -> None:
        """A line of figures, which the picture's label tells too."""
        self._told.append(words)
        self._lines(words, "note", 12)

    def legend(self, plan: Plan | None) -> None:
        kinds = {"head": "heads" if plan else "busy"}
        if plan and any(plan.divisions):
            kinds["part"] = "part of a divided head"
        if plan:
            slots = plan.slots is not None
            kinds["charge"] = "launch and KV slots" if slots else "launch and K/V of groups"
        kinds["idle"] = "idle"
        x, y = MARGIN, self._y + 14
        for kind, words in kinds.items():
            self._draw.path(kind, [box(x, y - 9, 12, 10)])
            self._draw.text(x + 17, y, words)
            x += 17 + len(words) * 12 * LETTER + 22
        self._y += 24

    def timeline(
        self,
        words: str,
        note: str,
        rows: list[str],
        cells: Timeline,
        makespans: Floats,
        scale_s: float,
    ) -> None:
        """Layers one after the other, as wide as their makespans; `scale_s` fills the page."""
        self._panel(words, note)
        height, top = _row_height(len(rows)), self._y
        per_s = PLOT / scale_s
        starts = np.concatenate([[0.0], np.cumsum(makespans)])
        told = len(rows) * len(cells) <= MOST_TOLD
        for device, name in enumerate(rows):
            y = top + device * height
            self._device(device, name, y, height)
            for layer, of in enumerate(cells):
                cell, x = of[device], LEFT + starts[layer] * per_s
                if told:
                    self._draw.begin(f"layer {layer}, device {device}: {_content(cell)}")
                self._cell(cell, makespans[layer], x, y, height, per_s)
                if told:
                    self._draw.end()
            busy_s = sum(of[device].load_s for of in cells)
            if _labelled(device, height):
                busy = f"{100 * busy_s / starts[-1]:.1f} %"
                self._draw.text(WIDTH - MARGIN, y + height / 2 + 4, busy, "note end")
        if len(cells) > 1:
            bars = (f"M{LEFT + s * per_s:.2f} {top}v{height * len(rows):.2f}" for s in starts)
            self._draw.path("line", bars)
        self._draw.text(WIDTH - MARGIN, top - 6, "busy", "note small end")
        self._y = top + height * len(rows)
        self._axis(scale_s, per_s)

    def heat_map(self, rows: list[str], idle: Floats) -> None:
        """Idle share of every (layer, device), for idle [layers, devices]; dots: the busiest."""
        most = max(LEAST_SCALE, ceil(20 * idle.max()) / 20)
        self._panel(
            "Idle share of each layer's time",
            f"None, to {100 * most:.0f} % in full colour. A dot is the device that others wait "
            "for.",
        )
        height, width = _row_height(len(rows)), PLOT / len(idle)
        gap = GAP if width > 4 else 0.0
        top = self._y
        for device, name in enumerate(rows):
            y = top + device * height
            self._device(device, name, y, height)
            for layer, share in enumerate(idle[:, device]):
                if share > 0:
                    x = LEFT + layer * width
                    tile = [box(x, y, width - gap, height - min(gap, height / 6))]
                    self._draw.path("idle", tile, share / most)
        size = min(5.0, height / 2, width / 2)
        places = [
            (LEFT + (layer + 0.5) * width, top + (of.argmin() + 0.5) * height)
            for layer, of in enumerate(idle)
        ]
        self._draw.path("dot", (box(x - size / 2, y - size / 2, size, size) for x, y in places))
        self._y = top + height * len(rows)
        self._draw.path("line", [f"M{LEFT} {top}h{PLOT}v{self._y - top:.2f}h-{PLOT}z"])
        every = ceil(26 / width)
        for layer in range(0, len(idle), every):
            x = LEFT + (layer + 0.5) * width
            self._draw.text(x, self._y + 14, str(layer), "note small middle")
        self._draw.text(LEFT - 8, self._y + 14, "layer", "note small end")
        self._y += 24

    def close_up(self, plan: Plan, layer: int, most: str, cells: Sequence[Cell]) -> None:
        """One layer large, its blocks named by their heads."""
        planned = plan.layers[layer]
        idle = 1 - sum(planned.loads_s) / (len(cells) * planned.makespan_s)
        self._panel(
            f"Layer {layer}{most}: {_ms(planned.makespan_s)}, {percent(idle)} of device time idle",
            "Blocks are heads by number. Dotted: no placement ends before.",
        )
        height, top, rows = max(15.0, _row_height(len(cells))), self._y, _rows(plan)
        per_s = PLOT / max(planned.makespan_s, planned.lower_bound_s)
        for device, cell in enumerate(cells):
            y = top + device * height
            self._device(device, rows[device], y, height)
            self._named(plan, layer, cell, y, height, per_s)
            idle_x = LEFT + cell.load_s * per_s
            self._box("idle", idle_x, y, (planned.makespan_s - cell.load_s) * per_s, height)
            busy = f"{100 * cell.load_s / planned.makespan_s:.1f} %"
            self._draw.text(WIDTH - MARGIN, y + height / 2 + 4, busy, "note end")
        self._draw.text(WIDTH - MARGIN, top - 6, "busy", "note small end")
        self._y = top + height * len(cells)
        if not plan.other_workloads:  # else it bounds all of them together
            x = LEFT + planned.lower_bound_s * per_s
            self._draw.path("bound", [f"M{x:.2f} {top - 3}v{self._y - top + 6:.2f}"])
        self._axis(planned.makespan_s, per_s)

    def methods(self, problem: str, rows: Sequence["Row"]) -> None:
        """One problem's methods: bars of their devices on one scale."""
        self._panel(problem)
        most_s = max(row.plan.makespan_s for row in rows)
        left, right = LEFT + 20, 300.0
        per_s = (WIDTH - left - right) / most_s
        for row in rows:
            plan = row.plan
            loads = np.array([planned.loads_s for planned in plan.layers]).sum(axis=0)
            height = min(9.0, max(2.0, 44 / len(loads)))
            tall = max(18.0, height * len(loads))
            y = self._y + (tall - height * len(loads)) / 2
            gap = GAP if height > 3 else 0.0
            busy = [box(left, y + d * height, s * per_s, height - gap) for d, s in enumerate(loads)]
            idle = [
                box(left + s * per_s, y + d * height, (plan.makespan_s - s) * per_s, height - gap)
                for d, s in enumerate(loads)
                if plan.makespan_s > s
            ]
            name = method_of(plan)
            said = (
                f"{_ms(plan.makespan_s)}, {row.over_bound:.4f} x bound, "
                f"{percent(plan.bubble_ratio)} idle"
            )
            self._told.append(f"{problem}, {name}: {said}")
            bound_x = left + row.bound_s * per_s
            self._draw.begin(f"{name}: {said}")
            self._draw.path("head", busy)
            self._draw.path("idle", idle)
            self._draw.path("bound", [f"M{bound_x:.2f} {self._y - 3:.2f}v{tall + 6:.2f}"])
            self._draw.end()
            middle = self._y + tall / 2 + 4
            self._draw.text(left - 8, middle, name, "end")
            self._draw.text(WIDTH - MARGIN, middle, said, "note end")
            self._y += tall + 7
        self._axis(most_s, per_s, left)

    def _lines(self, words: str, kind: str, size: float) -> None:
        for line in textwrap.wrap(words, int((WIDTH - 2 * MARGIN) / (size * LETTER))):
            self._y += size * 1.4
            self._draw.text(MARGIN, self._y - 4, line, kind)

    def _panel(self, words: str, note: str = "") -> None:
        self._y += 30
        self._draw.text(MARGIN, self._y - 12, words, "panel")
        if note:
            self._y += 17
            self._draw.text(MARGIN, self._y - 12, note, "note")
        self._y += 8

    def _device(self, device: int, name: str, y: float, height: float) -> None:
        if _labelled(device, height):
            short = name if len(name) < 15 else f"{name[:13]}…"
            self._draw.text(LEFT - 8, y + height / 2 + 4, short, "end")

    def _cell(
        self, cell: Cell, makespan_s: float, x: float, y: float, height: float, per_s: float
    ) -> None:
        """A device's time in a layer; blocks of a kind as one path."""
        gap = min(GAP, height / 6)
        tall = height - gap
        end = x
        self._draw.path("charge", [box(end, y, cell.charge_s * per_s, tall)])
        end += cell.charge_s * per_s
        parts: dict[str, list[str]] = {"head": [], "part": []}
        for block in cell.blocks:
            width = block.seconds * per_s
            apart = gap if width > 3 else 0.0
            parts[_kind(block)].append(box(end + apart, y, width - apart, tall))
            end += width
        for kind, boxes in parts.items():
            self._draw.path(kind, boxes)
        left = x + makespan_s * per_s - end
        if left > 0.02:
            self._draw.path("idle", [box(end, y, left, tall)])

    def _named(
        self, plan: Plan, layer: int, cell: Cell, y: float, height: float, per_s: float
    ) -> None:
        x = LEFT + cell.charge_s * per_s
        per_group = plan.architecture.query_heads // plan.architecture.kv_heads
        groups = len({block.head // per_group for block in cell.blocks})
        held = f"{groups} KV groups" if plan.slots is None else f"{groups} of {plan.slots} slots"
        self._draw.begin(f"launch, and K/V of {held}: {_ms(cell.charge_s)}")
        self._box("charge", LEFT, y, cell.charge_s * per_s, height)
        if _fits(held, x - LEFT):
            self._draw.text((LEFT + x) / 2, y + height / 2 + 4, held, "small middle on-charge")
        self._draw.end()
        for block in cell.blocks:
            width, kind = block.seconds * per_s, _kind(block)
            part = "" if block.share >= 1 else f", {100 * block.share:.0f} % of it"
            budget = f"{plan.budgets[layer][block.head]:,} tokens"
            self._draw.begin(f"head {block.head}{part}, budget {budget}: {_ms(block.seconds)}")
            self._box(kind, x, y, width, height)
            for name in (f"{block.head}{part.removesuffix(' of it')}", f"{block.head}"):
                if _fits(name, width):
                    at = x + width / 2
                    self._draw.text(at, y + height / 2 + 4, name, f"small middle on-{kind}")
                    break
            self._draw.end()
            x += width

    def _box(self, kind: str, x: float, y: float, width: float, height: float) -> None:
        apart = GAP if width > 3 else 0.0
        if width > 0.02:
            self._draw.path(kind, [box(x + apart, y, width - apart, height - 1)])

    def _axis(self, most_s: float, per_s: float, left: float = LEFT) -> None:
        self._draw.path("line", [f"M{left} {self._y + 2:.2f}h{most_s * per_s:.2f}"])
        for tick in _ticks(1e3 * most_s):
            x = left + tick / 1e3 * per_s
            self._draw.path("line", [f"M{x:.2f} {self._y + 2:.2f}v4"])
            self._draw.text(x, self._y + 17, f"{tick:g}", "note small middle")
        self._draw.text(left - 8, self._y + 17, "ms", "note small end")
        self._y += 26


def _kind(block: Block) -> str:
    return "head" if block.share >= 1 else "part"


def _fits(words: str, width: float) -> bool:
    """Whether small words have room in a block."""
    return len(words) * 11 * LETTER + 4 < width


def _content(cell: Cell) -> str:
    heads = ", ".join(
        f"{b.head}" if b.share >= 1 else f"{b.head} ({100 * b.share:.0f} %)"
        for b in cell.blocks
        if b.head >= 0
    )
    return f"{_ms(cell.load_s)} busy" + (f", heads {heads}" if heads else "")


def _row_height(devices: int) -> float:
    return min(24.0, max(5.0, 208 / devices))


def _labelled(device: int, height: float) -> bool:
    """Whether there is room for a name at every so many rows."""
    return device % ceil(12 / height) == 0
