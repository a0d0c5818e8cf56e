"""The latent space of the tuned model beside the default's."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scvitune.errors import CheckpointError
from scvitune.results._latent import add_names, cached_umap, compute_umap, latent_roles
from scvitune.results._run_directory import Run
from scvitune.results._typesetting import whole_path
from scvitune.results.plots._base import Plot
from scvitune.results.plots._figure import Figure
from scvitune.results.plots._style import CATEGORIES, GREY, plain, style

_MAX_DRAWN = 3000
"""Cells in a panel, drawn by lot: as vector graphics, more make a page slow."""
_PANEL = 400
_KNOWN = ("role", "trial_id", "cell", "umap_1", "umap_2")
_TITLES = {"default": "default configuration", "best": "best trial"}
_BOTH = "default configuration, the best trial"


def umap_data(run: Run, adata: Any = None, keys: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return `compute_umap`, from the run directory if it was computed before.

    Parameters
    ----------
    run
        The run.
    adata, keys
        The AnnData that was tuned on, and columns of its ``obs`` to colour by, besides the batch
        and the label that were registered.
    """
    cached = cached_umap(run)
    table = compute_umap(run) if cached is None else cached
    return table if adata is None else add_names(table, adata, list(keys))


def plot_umap(
    run: Run, adata: Any = None, keys: tuple[str, ...] = ()
) -> tuple[go.Figure, pd.DataFrame]:
    """Plot the latent space of the default and of the best trial, coloured by batch and label.

    Returns
    -------
    The figure (at most 3000 cells a panel, drawn by lot), and all coordinates; see `umap_data`.
    """
    data = umap_data(run, adata, keys)
    roles = [role for role in _TITLES if (data["role"] == role).any()]
    names = [name for name in data.columns if name not in _KNOWN] or [""]
    figure = make_subplots(
        figure=Figure(),
        rows=len(names),
        cols=len(roles),
        horizontal_spacing=0.03,
        vertical_spacing=0.08 / len(names),
        # of one row, the legend says it
        row_titles=[plain(name) for name in names] if len(names) > 1 else None,
        column_titles=[_BOTH] if _is_of_default(run) else [_TITLES[r] for r in roles],
    )
    style(figure, height=_PANEL * len(names) + 60)
    cells = data["cell"].unique()
    drawn = set(np.random.default_rng(0).permutation(cells)[:_MAX_DRAWN].tolist())
    shown = data[data["cell"].isin(drawn)]
    for row, name in enumerate(names, start=1):
        for column, role in enumerate(roles, start=1):
            _panel(figure, shown[shown["role"] == role], name, row=row, column=column)
    figure.update_xaxes(showticklabels=False, showgrid=False, ticks="", title_text=None)
    figure.update_yaxes(showticklabels=False, showgrid=False, ticks="", showline=True)
    for column in range(1, len(roles) + 1):
        figure.update_xaxes(title_text="UMAP 1", row=len(names), col=column)
    figure.update_yaxes(title_text="UMAP 2", col=1)
    # The legend pushes the margin as far as it has to; the rows' titles stand before it.
    place = {"orientation": "v", "x": 1.02 if len(names) == 1 else 1.06, "y": 1}
    figure.update_layout(margin={"t": 50, "r": 20}, legend=place)
    figure.update_layout(legend_yanchor="top", legend_itemsizing="constant")
    return figure, data


def _is_of_default(run: Run) -> bool:
    """Tell whether nothing is better than the default, and so no panel stands beside its own."""
    default = None if run.default is None else run.default.trial_id
    return default is not None and latent_roles(run) == {"best": default}


def _panel(figure: go.Figure, part: pd.DataFrame, name: str, *, row: int, column: int) -> None:
    groups = [("", part)] if not name else list(part.groupby(name, sort=True))
    for number, (value, members) in enumerate(groups):
        figure.add_scatter(
            x=members["umap_1"],
            y=members["umap_2"],
            mode="markers",
            marker={
                "size": 4,
                "opacity": 0.75,
                "color": CATEGORIES[number % len(CATEGORIES)] if name else GREY,
                "symbol": ["circle", "diamond", "cross"][number // len(CATEGORIES) % 3],
            },
            name=plain(value),
            legendgroup=f"{row}-{number}",
            legendgrouptitle_text=plain(name) if number == 0 else None,
            showlegend=column == 1 and bool(name),
            hoverinfo="name" if name else "skip",
            hoverlabel={"namelength": -1},
            row=row,
            col=column,
        )


def _words(run: Run, data: pd.DataFrame) -> str:
    text = (
        "UMAP of the latent space, from the weights kept of each. Good integration mixes batches "
        "and keeps labels apart. Distances in a UMAP mean little: judge by the metrics."
    )
    if _is_of_default(run):
        text = f"{text} There is one, for the default configuration is the best trial."
    missing = [name for name in ("batch", "label") if name not in data.columns]
    if not missing:
        return text
    if missing == ["batch"]:
        return f"{text} It is coloured by label only, for no batch_key was registered."
    both = len(missing) == 2
    said = "not coloured, for no batch_key and no" if both else "coloured by batch only, for no"
    return (
        f"{text} It is {said} labels_key was registered; "
        "`study.plot('umap', adata=adata, keys=[...])` colours by columns of `adata.obs`."
    )


def _say_absent(run: Run) -> str:
    from scvitune.results._weights import weights_path  # brings torch

    def is_gone(trial_id: str) -> bool:
        try:
            return weights_path(run, trial_id) is None
        except CheckpointError:  # damaged: that is said where weights are needed
            return True

    roles = {} if run.is_of_spots or not run.search else latent_roles(run)
    if not roles:
        return ""
    if run.at_work:
        return "The UMAP of the latent space is drawn once the study has ended."
    gone = [trial_id for trial_id in roles.values() if is_gone(trial_id)]
    if gone:
        return f"There is no UMAP: the weights of trial {gone[0]} were not kept."
    return (
        f"`scvitune report {shlex.quote(whole_path(run))}` adds a UMAP of the latent space, the "
        "tuned model's beside the default's."
    )


PLOT = Plot(
    "The latent space, tuned beside default",
    _words,
    plot_umap,
    section="latent",
    is_shown=lambda run: cached_umap(run) is not None,
    say_absent=_say_absent,
)
