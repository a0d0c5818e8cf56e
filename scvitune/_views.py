"""What can be looked at of a study: tables and plots by name, and the way to Optuna."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from scvitune.contracts import Config

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    import plotly.graph_objects as go

    from scvitune.results import Run


class Views:
    """Tables and plots of a run; needs neither Ray nor the data."""

    _run: Run

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial, by ``trial_id`` (``00000`` is the default).

        Columns: ``status``, ``reason``, ``epochs``, ``best_epoch``, ``time_s``, ``n_params``, one
        a metric (its value at the trial's best report), one a hyperparameter as ``config/NAME``.
        """
        from scvitune.results import trials_table

        return trials_table(self._run)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row a report: ``trial_id``, ``epoch``, ``time_s`` and the metrics."""
        from scvitune.results import history_table

        return history_table(self._run)

    @property
    def pareto_front(self) -> pd.DataFrame:
        """The rows of `trials` that no other trial beats in all metrics that were asked for.

        A trial is beaten by one that is at least as good in every metric and better in one, each
        at the trial's best report. With one metric, these are the best trials.
        """
        from scvitune.results import pareto_table

        return pareto_table(self._run)

    @property
    def best_trial_id(self) -> str:
        """The trial with the best report; with ``confirm``, the winner once all is confirmed.

        Raises
        ------
        StudyError
            While no trial has a result.
        """
        from scvitune.results._winner import require_best

        return require_best(self._run, wanted="best trial")

    @property
    def best_config(self) -> Config:
        """The best configuration: flat, in scvi-tools' own names."""
        return dict(self._run.records[self.best_trial_id].config)

    @cached_property
    def confirmation(self) -> pd.DataFrame:
        """One row a trial that was trained again with fresh seeds, the winner first.

        Means and standard errors over seeds, and the paired difference to the default on the
        test cells, which have no say in who wins: see `scvitune.results.confirmation_table`.
        """
        from scvitune.results import confirmation_table

        return confirmation_table(self._run)

    @property
    def plots(self) -> tuple[str, ...]:
        """The names that `plot` takes."""
        from scvitune.results.plots import PLOTS

        return tuple(PLOTS)

    def plot(self, name: str, **options: Any) -> tuple[go.Figure, pd.DataFrame]:
        """Draw a plot and return it with the numbers that it shows.

        Parameters
        ----------
        name
            One of `plots`.
        **options
            Of that plot: ``metric`` of ``curves``, ``first`` and ``second`` of ``pareto``,
            ``trial_id`` of ``schedule``, ``adata`` and ``keys`` of ``umap``.

        Returns
        -------
        A plotly figure and a DataFrame. ``figure.show()`` opens it in a browser, its camera saves
        SVG, and ``figure.write_html("figure.html")`` saves a page that has the same camera.
        ``figure.write_image("figure.pdf", width=1000, height=500)`` saves PDF, SVG or PNG from a
        script; it needs the extra ``figures`` (``pip install 'scvitune[figures]'``) and a Chrome
        or Chromium.

        Raises
        ------
        InputError
            If there is no such plot; from ``write_image``, if the extra is not installed.

        Examples
        --------
        >>> figure, data = study.plot("curves")
        """
        from scvitune._disk import disk_faults_explained
        from scvitune.results.plots import draw_plot

        with disk_faults_explained(self._run.layout):  # the UMAP's coordinates are kept
            return draw_plot(self._run, name, **options)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names that `table` takes."""
        from scvitune.results import TABLES

        return tuple(TABLES)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by name, such as ``best_trials``, ``published`` or ``rungs``.

        Parameters
        ----------
        name
            One of `tables`.

        Raises
        ------
        InputError
            If there is no such table.
        """
        from scvitune.results import build_table

        return build_table(self._run, name)

    def to_optuna(self) -> optuna.Study:
        """Return all trials as an Optuna study in memory, for Optuna's plots and dashboard.

        Finished trials are COMPLETE, stopped ones PRUNED, diverged and failed ones FAIL.
        Parameters are the hyperparameters in which trials differ, conditional ones where they
        are active; constants, status, epochs and all metrics are user attributes.

        Examples
        --------
        >>> optuna.visualization.plot_param_importances(study.to_optuna())
        """
        from scvitune.results import build_optuna_study

        return build_optuna_study(self._run)
