"""A drawing in SVG: shapes by class, one stylesheet for light and dark, nothing loaded or run.

Colours are only in `STYLE`, which travels inside every drawing, so that a file, a notebook and a
page with a strict content security policy (which names the sheet's hash) show the same. Read by
screen readers as one image with a label.
"""

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from xml.sax.saxutils import escape, quoteattr

INK, MUTED, LINES, PAPER = "#1d2430", "#566171", "#d5dbe3", "#ffffff"
INK_DARK, MUTED_DARK, LINES_DARK, PAPER_DARK = "#e7ebf1", "#a3afbf", "#39424f", "#161b22"

STYLE = f"""
.hplb{{font:12px system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}}
.hplb .paper{{fill:{PAPER}}} .hplb text{{fill:{INK}}} .hplb .note{{fill:{MUTED}}}
.hplb .title{{font-size:16px;font-weight:600}} .hplb .panel{{font-size:13px;font-weight:600}}
.hplb .small{{font-size:10px}} .hplb .end{{text-anchor:end}} .hplb .middle{{text-anchor:middle}}
.hplb .line{{stroke:{LINES};fill:none}} .hplb .mark{{stroke:{INK};fill:none;stroke-width:1.2}}
.hplb .bound{{stroke:{INK};fill:none;stroke-dasharray:2 3}}
.hplb .head{{fill:#2b6cb0}} .hplb .part{{fill:#8cc0ee}} .hplb .charge{{fill:#667283}}
.hplb .idle{{fill:#edb83d}} .hplb .dot{{fill:{INK}}}
.hplb text.on-head,.hplb text.on-charge{{fill:#ffffff}}
.hplb text.on-part{{fill:#10151d}}
@media (prefers-color-scheme:dark){{
.hplb .paper{{fill:{PAPER_DARK}}} .hplb text{{fill:{INK_DARK}}} .hplb .note{{fill:{MUTED_DARK}}}
.hplb .line{{stroke:{LINES_DARK}}} .hplb .mark,.hplb .bound{{stroke:{INK_DARK}}}
.hplb .head{{fill:#4a90d9}} .hplb .part{{fill:#b9daf7}} .hplb .charge{{fill:#8f9bab}}
.hplb .idle{{fill:#d69e2e}} .hplb .dot{{fill:{INK_DARK}}}
.hplb text.on-head,.hplb text.on-charge{{fill:#0b1220}}
}}"""

STYLE_HASH = f"'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'"
"""What a content security policy's `style-src` names to allow it."""

LETTER = 0.55
"""Of the font's size: about what a letter is wide."""


def number(value: float) -> str:
    """A coordinate, to a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def box(x: float, y: float, width: float, height: float) -> str:
    """A rectangle as a part of a path."""
    w = number(width)
    return f"M{number(x)} {number(y)}h{w}v{number(height)}h-{w}z"


class Drawing:
    """Shapes on paper `width` pixels wide, each drawn over those before it."""

    def __init__(self, width: float) -> None:
        self.width = width
        self._shapes: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "") -> None:
        """Words on the base line `y`; `kind` are classes of `STYLE`."""
        named = f' class="{kind}"' if kind else ""
        self._shapes.append(f'<text x="{number(x)}" y="{number(y)}"{named}>{escape(words)}</text>')

    def path(self, kind: str, parts: Iterable[str], opacity: float = 1.0) -> None:
        """Parts of one path, all of one kind; nothing where there are none."""
        drawn = "".join(parts)
        if drawn:
            faint = "" if opacity >= 1 else f' fill-opacity="{opacity:.3f}"'
            self._shapes.append(f'<path class="{kind}" d="{drawn}"{faint}/>')

    def begin(self, told: str) -> None:
        """Begin a group that shows `told` under the pointer; ended by `end`."""
        self._shapes.append(f"<g><title>{escape(told)}</title>")

    def end(self) -> None:
        """End the newest group."""
        self._shapes.append("</g>")

    def svg(self, height: float, label: str) -> str:
        """The whole drawing; `label` is what it says to those who do not see it."""
        size = f"{number(self.width)} {number(height)}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="hplb" viewBox="0 0 {size}" '
            f'role="img" aria-label={quoteattr(label)}><style>{STYLE}</style>'
            f'<path class="paper" d="{box(0, 0, self.width, height)}"/>'
            f"{''.join(self._shapes)}</svg>\n"
        )
