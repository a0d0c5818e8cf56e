"""Trials that end within their KL warm-up, while what ranks them counts the KL term in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

KL_WARMUP = "n_epochs_kl_warmup"

_NEARLY = 0.9
"""From this share of its weight on, the KL term counts as trained in full: on 21,000 cells
scvi-tools itself trains for 381 epochs of a warm-up of 400."""
_MOST = 2 / 3
"""Of the trials; in the default space and 40 epochs it is half of them, and the rest win."""
_BATCH_SIZE = 128  # scvi-tools' own


@dataclass(frozen=True)
class HeldKl:
    """How far the KL weight of a study's trials comes.

    Attributes
    ----------
    epochs
        Longest training of a trial.
    warmups
        Epochs over which the weight rises in those that end before, shortest and longest.
    weight
        Largest share of its weight that the KL term gets in them.
    all_are
        Whether no trial comes further.
    """

    epochs: float
    warmups: tuple[float, float]
    weight: float
    all_are: bool

    def describe(self, *, n_latent: bool, ahead: bool = False) -> str:
        """Return what happens to the trials, or will if it is ahead, and what it means.

        Parameters
        ----------
        n_latent
            Whether it is searched.
        """
        leave, gets, counts = (
            ("cannot leave", "never gets", "counts")
            if ahead
            else ("never left", "never got", "counted")
        )
        length = " to ".join(dict.fromkeys(f"{round(end, 1):g}" for end in self.warmups))
        who = "the trials" if self.all_are else "most trials"
        favours = "may favour what keeps the KL divergence small for other reasons" + (
            ", such as a small n_latent" if n_latent else ""
        )
        if not self.all_are:
            favours += ", and favours a short warm-up for that alone"
        return (
            f"{who} {leave} their KL warm-up: of {length} epochs, in trainings of "
            f"{self.epochs:g}. The KL term {gets} more than {100 * self.weight:.2g} % of its "
            f"weight in them, while the metric that ranks them {counts} it in full. So the "
            f"ranking {favours}; the reconstruction loss may be worse all the same, compare it "
            "too."
        )

    @property
    def remedy(self) -> str:
        """What to do: ``Hold ...``."""
        third = max(1, round(self.epochs / 3))
        return (
            f"Hold {KL_WARMUP} in the space at about a third of max_epochs "
            f"(`{KL_WARMUP}: {third}`), or give more epochs than the warm-up has."
        )


def find_held(
    trials: Iterable[tuple[Mapping[str, Any], float]],
    *,
    metric: str,
    max_epochs: float | None,
    default_warmup: float | None,
    n_train: int | None = None,
) -> HeldKl | None:
    """Return how the KL weight is held down in most trials; None: it is not, or does not matter.

    Parameters
    ----------
    trials
        Configurations, and how long each trains.
    metric
        That ranks them; of others than the ELBO and the marginal log-likelihood, which both count
        the KL term in full, nothing is known.
    max_epochs
        Longest training of a trial; None: not known.
    default_warmup
        Epochs where a configuration does not say; None: the weight does not rise over epochs.
    n_train
        Training cells, which turn steps into epochs; None: not known, steps do not count.
    """
    if max_epochs is None or not metric.startswith(("elbo_", "marginal_ll_")):
        return None
    n_trials, held = 0, []
    for config, epochs in trials:
        n_trials += 1
        warmup = _warmup_of(config, default_warmup, n_train)
        if warmup > 0 and _share(config, epochs / warmup) < _NEARLY:
            held.append((warmup, _share(config, epochs / warmup)))
    if not held or len(held) < _MOST * n_trials:
        return None
    lengths = [warmup for warmup, _ in held]
    return HeldKl(
        max_epochs,
        (min(lengths), max(lengths)),
        max(share for _, share in held),
        len(held) == n_trials,
    )


def share_at(
    config: Mapping[str, Any], epoch: float, *, default_warmup: float | None, n_train: int | None
) -> float:
    """Return the share of its weight that the KL term has at an epoch; see `find_held`."""
    warmup = _warmup_of(config, default_warmup, n_train)
    return _share(config, epoch / warmup) if warmup > 0 else 1.0


def _warmup_of(config: Mapping[str, Any], default: float | None, n_train: int | None) -> float:
    """Return the epochs over which a configuration's KL weight rises, 0 for none."""
    epochs = _number(config.get(KL_WARMUP, default))
    if epochs or not n_train:
        return epochs
    batch_size = _number(config.get("batch_size")) or _BATCH_SIZE
    return _number(config.get("n_steps_kl_warmup")) * batch_size / n_train


def _share(config: Mapping[str, Any], progress: float) -> float:
    """Return the share of its largest weight that the KL term has after a part of the warm-up."""
    least, most = _number(config.get("min_kl_weight")), _number(config.get("max_kl_weight", 1.0))
    if progress >= 1 or most <= 0:
        return 1.0
    return (least + (most - least) * progress) / most


def _number(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else 0.0
