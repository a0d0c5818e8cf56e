"""The default space of CondSCVI."""

from __future__ import annotations

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace


def default_condscvi_space() -> SearchSpace:
    """Return the default space of CondSCVI: eight hyperparameters, one of them conditional.

    - ``n_latent`` 3 to 20: the labels are given, so the latent variable holds only what differs
      within a cell type, and scvi-tools' default is 5. DestVI learns as many numbers a spot and
      cell type.
    - ``n_hidden`` 64, 128, 256; ``n_layers`` 1 to 3: around scvi-tools' 128 and 2.
    - ``dropout_rate`` 0 to 0.3 in steps of 0.05, the default: it acts in the decoder too, where
      SCVI has none.
    - ``prior`` normal or mog, a mixture that is learned for each label; with it
      ``num_classes_mog`` 5, 10, 20. For ``DestVI.from_rna_model``, which fails with the normal
      prior in scvi-tools 1.4 and 1.5, hold ``prior`` constant at mog and leave out the default
      trial, whose prior is normal.
    - ``lr`` and ``n_epochs_kl_warmup`` as in SCVI's space. scvi-tools' warm-up of 400 epochs is
      longer than its training of 300, so that the KL term never gets its full weight.

    ``weight_obs`` is left out: it trains for rare labels at the cost of common ones, which the
    unweighted ELBO that compares the trials can only count as a loss. Whoever wants it holds it
    constant (``weight_obs: true``). ``batch_size`` and ``weight_decay`` are left out as in SCVI's
    space.
    """
    return SearchSpace(
        (
            Hyperparameter("n_latent", IntRange(3, 21)),
            Hyperparameter("n_hidden", Choice((64, 128, 256), ordered=True)),
            Hyperparameter("n_layers", IntRange(1, 4)),
            Hyperparameter("dropout_rate", FloatRange(0.0, 0.3, quantum=0.05)),
            Hyperparameter("prior", Choice(("normal", "mog"))),
            Hyperparameter(
                "num_classes_mog", Choice((5, 10, 20), ordered=True), when={"prior": ("mog",)}
            ),
            Hyperparameter("lr", FloatRange(1e-4, 1e-2, log=True)),
            Hyperparameter("n_epochs_kl_warmup", Choice((5, 20, 100, 400), ordered=True)),
        ),
        {},
    )
