"""How all figures look: colours, axes, ranges, and text from data that stays text."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from scvitune.contracts import Mode
from scvitune.results._wording import better_way, cells_of, describe_metric, metric_words
from scvitune.results.plots._figure import Figure

INK, SOFT, GRID = "#1f2937", "#5b6675", "#e2e6ea"
GREY = "#8a94a0"
BEST, DEFAULT = "#d55e00", "#1f2937"
"""The winner is vermilion everywhere, the default dark and dashed."""

CATEGORIES = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f"),
    *("#332288", "#88ccee", "#117733", "#999933", "#882255"),
)
"""For names: Okabe and Ito's palette, then Tol's, told apart with any colour vision."""

SEQUENCE = ("#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743")
"""For numbers: viridis without its yellow end, which is pale on white."""

_FONT = '"Helvetica Neue", Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif'
_HEIGHT = 430


def plain(value: Any) -> str:
    """Return text from data as plotly shows it verbatim: plotly reads some HTML in its labels."""
    return html.escape(str(value), quote=False)


def new_figure(*, height: int = _HEIGHT) -> go.Figure:
    """Return an empty figure in the style of the report."""
    return style(Figure(), height=height)


def style(figure: go.Figure, *, height: int = _HEIGHT) -> go.Figure:
    """Give a figure (also one of subplots) the style of the report."""
    figure.update_layout(
        template="none",
        height=height,
        font={"family": _FONT, "size": 13, "color": INK},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        margin={"l": 70, "r": 20, "t": 40, "b": 60},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"bgcolor": "#ffffff", "font": {"color": INK, "size": 12}, "align": "left"},
        hovermode="closest",
    )
    axis = {
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": SOFT,
        "ticks": "outside",
        "tickcolor": SOFT,
        "automargin": True,
        "title": {"standoff": 10},
    }
    figure.update_xaxes(**axis, showline=True)
    figure.update_yaxes(**axis)
    return figure


def say_empty(figure: go.Figure, words: str) -> go.Figure:
    """Say in a figure why there is nothing in it."""
    figure.add_annotation(
        text=words, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font_color=SOFT
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


SHOW_ALL = "a double click in the figure shows all"


def note_hidden(figure: go.Figure, words: str) -> None:
    """Say in the corner of a figure what lies outside of its range, for who sees it alone."""
    figure.add_annotation(
        text=f"{plain(words)}: double click shows all",
        **{"x": 1, "xref": "paper", "xanchor": "right"},
        **{"y": 1, "yref": "paper", "yanchor": "top"},
        showarrow=False,
        bgcolor="rgba(255, 255, 255, 0.8)",
        font={"size": 12, "color": SOFT},
    )


def metric_axis(name: str, mode: Mode | None) -> str:
    """Return an axis title: metric, unit, and which way is better."""
    unit = metric_words(name).unit
    notes = ", ".join(part for part in (unit, better_way(mode) if mode else "") if part)
    text = plain(describe_metric(name))
    return f"{text}<br><span style='font-size:12px'>({notes})</span>" if notes else text


def lines_of(name: str, *, width: int) -> list[str]:
    """Return a metric as the lines of a label: what, on which cells, in which unit."""
    words, cells = metric_words(name), cells_of(name)
    lines = textwrap.wrap(words.label, width) + textwrap.wrap(cells, width)
    return [*(plain(line) for line in lines), *([f"({plain(words.unit)})"] if words.unit else [])]


def round_ticks(low: float, high: float, *, most: int = 5, whole: bool = False) -> list[float]:
    """Return round numbers for a linear axis: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis: powers of ten, and thirds of short ranges."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1,) if last - first > 2 else (1, 3) if last - first > 1 else (1, 2, 5)
    ticks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def colour_at(part: float, colours: Sequence[str] = SEQUENCE) -> str:
    """Return the colour at a part (0 to 1) of a scale, as ``#rrggbb``."""
    place = min(max(part, 0.0), 1.0) * (len(colours) - 1)
    index = min(int(place), len(colours) - 2)
    rest = place - index
    mixed = [
        round((1 - rest) * int(colours[index][i : i + 2], 16) + rest * int(after, 16))
        for i in (1, 3, 5)
        for after in [colours[index + 1][i : i + 2]]
    ]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def colour_scale() -> list[list[Any]]:
    """Return the colour scale of numbers in plotly's form."""
    return [[i / (len(SEQUENCE) - 1), colour] for i, colour in enumerate(SEQUENCE)]


def colour_bar(title: str, low: float, high: float, **changes: Any) -> dict[str, Any]:
    """Return a marker that draws nothing but a colour bar from ``low`` to ``high``."""
    bar = {
        "title": {"text": title, "side": "right"},
        "thickness": 12,
        "outlinewidth": 0,
        "len": 1,
        "ticks": "outside",
    }
    return {
        "color": [low, high],
        "cmin": low,
        "cmax": high if high > low else low + 1,
        "colorscale": colour_scale(),
        "showscale": True,
        "colorbar": bar | changes,
        "size": 0,
        "opacity": 0,
    }


def joined(curves: Iterable[pd.DataFrame], columns: Sequence[str]) -> list[list[Any]]:
    """Return columns of several curves as lists for one trace, with a gap between curves."""
    lists: list[list[Any]] = [[] for _ in columns]
    for curve in curves:
        for values, name in zip(lists, columns, strict=True):
            values += [*curve[name].tolist(), None]
    return [values[:-1] for values in lists]
