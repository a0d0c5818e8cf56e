"""Default search space of DestVI, of both its stages."""

from __future__ import annotations

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace


def default_destvi_space() -> SearchSpace:
    """Return the default space of DestVI.

    Batch size and amortisation come first: where spots are few they decide between the best and
    the worst of a published benchmark (Li et al., Nature Methods 2022). Batch sizes above the
    number of spots are left out. The first stage's hyperparameters are choices, so that trials
    share trained first stages.

    All four schemes of amortisation are in it. ``both`` and ``latent`` keep the default prior of
    states, a mixture; ``none`` and ``proportion`` work with ``prior_mode="normal"`` only, which
    exists with them and has no other value.

    The number of epochs is left out: a trial is judged by its best report, whose weights are
    kept, so that one long training covers all shorter ones.
    """
    return SearchSpace(
        (
            Hyperparameter(
                "batch_size",
                Choice((4, 8, 16, 32, 64, 128, 256, 512, 1024), ordered=True),
                mutable=False,  # a small one is chosen for the whole of a training
            ),
            Hyperparameter("amortization", Choice(("both", "latent", "none", "proportion"))),
            Hyperparameter(
                "prior_mode", Choice(("normal",)), when={"amortization": ("none", "proportion")}
            ),
            Hyperparameter("lr", FloatRange(3e-4, 1e-2, log=True)),
            Hyperparameter("n_epochs_kl_warmup", Choice((50, 200, 400), ordered=True)),
            Hyperparameter("dropout_amortization", FloatRange(0.0, 0.2)),
            Hyperparameter("condscvi_n_hidden", Choice((64, 128, 256), ordered=True)),
            Hyperparameter("condscvi_n_latent", Choice((3, 5, 8, 12), ordered=True)),
            Hyperparameter("condscvi_n_layers", IntRange(1, 4)),
            Hyperparameter("condscvi_dropout_rate", Choice((0.0, 0.05, 0.1), ordered=True)),
            Hyperparameter("condscvi_weight_obs", Choice((False, True))),
            Hyperparameter("condscvi_prior", Choice(("mog", "normal"))),
        ),
        {},
    )
