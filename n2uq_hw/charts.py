"""Charts in one style: figures of matplotlib, as files or as SVG that an HTML page recolors."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from markupsafe import Markup

__all__ = ["THEME", "color", "figure", "inline", "loss_curve", "style"]

# Colors by name, on light and on dark paper.  A figure has the light ones; within a page they are
# variables of its style sheet, so no two may be equal.
THEME = {
    "ink": ("#1c2128", "#e6edf3"),
    "muted": ("#59636e", "#9da7b3"),
    "line": ("#d0d8df", "#3d444d"),
    "faint": ("#e4e8ec", "#2b323a"),
    "paper": ("#fefefe", "#0f1318"),
    "card": ("#f5f7f9", "#171c22"),
    "first": ("#1f6fb5", "#62aef0"),
    "second": ("#c2570c", "#f0934a"),
    "third": ("#7a4fb0", "#b795e8"),
    "good": ("#1a7340", "#4cc27e"),
    "bad": ("#b3202a", "#ff7b7f"),
}
FONT = "DejaVu Sans"  # matplotlib brings it: a figure is the same wherever it is drawn


def color(name: str) -> str:
    """The color `name` of THEME, on light paper."""
    return THEME[name][0]


@contextmanager
def style(salt: str) -> Iterator[None]:
    """Figures made within are in the style of the project, whatever the user's settings.

    `salt` makes the identifiers within SVG, equal ones for equal figures.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of its cache, not of figures
    import matplotlib.style

    ink, muted, line = color("ink"), color("muted"), color("line")
    with matplotlib.style.context(["default", {
            "svg.hashsalt": salt, "svg.fonttype": "none", "text.parse_math": False,
            "font.family": "sans-serif", "font.sans-serif": [FONT], "font.size": 8,
            "text.color": ink, "axes.labelcolor": ink, "axes.titlesize": 9, "axes.edgecolor": line,
            "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
            "xtick.color": muted, "ytick.color": line, "xtick.labelcolor": ink,
            "ytick.labelcolor": ink, "grid.color": line, "grid.linewidth": 0.6,
            "hatch.linewidth": 0.6, "patch.edgecolor": ink}]):
        yield


def figure(width: float, height: float, **options: Any) -> Any:
    """An empty Figure of so many points, laid out so that nothing overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), layout="constrained", **options)


def loss_curve(history: Sequence[Mapping[str, float]]) -> Any:
    """The loss of each epoch of a training, and the validation accuracy."""
    drawn = figure(380, 180)
    panel, epochs = drawn.subplots(), range(1, len(history) + 1)
    panel.plot(epochs, [row["loss"] for row in history], color=color("first"))
    panel.set(xlabel="epoch", ylabel="loss (solid)")
    panel.set_ylim(bottom=0)
    beside = panel.twinx()
    beside.plot(epochs, [100 * row["validation"] for row in history], "--", color=color("second"))
    beside.set(ylabel="validation accuracy in % (dashed)", ylim=(0, 100))
    return drawn


def inline(drawn: Any, name: str, label: str) -> Markup:
    """SVG of a Figure for an HTML page that has the variables of THEME.

    `name` sets its identifiers apart from those of the page's other figures; `label` is its text
    for those who do not see it.
    """
    held = io.StringIO()
    drawn.savefig(held, format="svg", transparent=True, metadata={
        "Date": None, "Creator": None, "Format": None, "Type": None})
    text = held.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text,
                  flags=re.DOTALL).replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"',
                  lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r' (?:d|x|y|width|height|transform)="[^"]*"', lambda m: re.sub(
        r"-?\d+\.\d+", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), m[0]), text)
    text = re.sub(rf"'{FONT}'(?:, [^;\"]*)?", "var(--sans)", text)
    for key, (light, _) in THEME.items():
        text = text.replace(light, f"var(--{key})")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert box is not None
    head = (f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="0 0 {box[1]} '
            f'{box[2]}" style="max-width: {1.7 * float(box[1]):.0f}px">')
    return Markup(head + re.sub(r"\s*\n\s*", "\n", text[text.index(">") + 1:]))
