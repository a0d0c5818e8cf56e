"""The default spaces of scVI and of its linear decoder."""

from __future__ import annotations

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace


def default_scvi_space() -> SearchSpace:
    """Return the default space of SCVI: seven hyperparameters.

    It starts from the space of scVI's first published autotune (2019), widened where its winners
    lay at an edge or where later studies went further.

    - ``n_latent`` 5 to 50, where 2019 had 5 to 15: the winners had 10, 14 and 15, and a study of
      960 runs found that more than 30 dimensions often integrate best.
    - ``n_hidden`` 64, 128, 256, 512: the winners of all three datasets had 256, then the largest,
      and the authors say that a larger one may do better.
    - ``n_layers`` 1 to 3: all winners had 1; more than 3 only costs time.
    - ``dropout_rate`` 0 to 0.5 in steps of 0.1: the winners had 0.1, 0.1 and 0.5. Coarse steps,
      because finer ones are lost in the noise between seeds.
    - ``gene_likelihood`` zinb or nb: 2019 always found zinb, unique molecular identifiers often
      need no zero inflation.
    - ``lr`` 1e-4 to 1e-2 on a logarithmic scale: the bounds of 2019, continuous.
    - ``n_epochs_kl_warmup`` 5, 20, 100, 400: scvi-tools' default of 400 is longer than most
      trainings on more than 20000 cells, so that the KL term never gets its full weight, which
      the unweighted ELBO then charges for.

    ``dispersion`` is left out since it matters only with batches or labels, ``weight_decay`` since
    Adam's large ``eps`` in scvi-tools leaves it little effect, ``batch_size`` since it trades
    speed rather than quality.
    """
    return _space(likelihoods=("zinb", "nb"))


def default_linear_scvi_space() -> SearchSpace:
    """Return the default space of LinearSCVI: that of SCVI for the encoder and the training.

    The decoder is linear, so ``n_hidden``, ``n_layers`` and ``dropout_rate`` shape the encoder
    alone, and ``n_latent`` is the number of factors that a gene's loadings are read from.
    ``nb`` comes first, as it is this model's default.
    """
    return _space(likelihoods=("nb", "zinb"))


def _space(*, likelihoods: tuple[str, ...]) -> SearchSpace:
    return SearchSpace(
        (
            Hyperparameter("n_latent", IntRange(5, 51)),
            Hyperparameter("n_hidden", Choice((64, 128, 256, 512), ordered=True)),
            Hyperparameter("n_layers", IntRange(1, 4)),
            Hyperparameter("dropout_rate", FloatRange(0.0, 0.5, quantum=0.1)),
            Hyperparameter("gene_likelihood", Choice(likelihoods)),
            Hyperparameter("lr", FloatRange(1e-4, 1e-2, log=True)),
            Hyperparameter("n_epochs_kl_warmup", Choice((5, 20, 100, 400), ordered=True)),
        ),
        {},
    )
