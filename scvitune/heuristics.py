"""Rules of thumb for hyperparameters, where a search has not been made yet or is to start."""

from __future__ import annotations

from numbers import Integral

from scvitune.errors import InputError

_LARGEST_BATCH = 128
"""scvi-tools' own batch size."""

_SMALLEST_BATCH = 4

_SPOTS_PER_BATCH_SPOT = 10

_LR_AT_LARGEST_BATCH = 0.001
"""scvi-tools' own learning rate of SCVI."""


def destvi_batch_size(n_spots: int) -> int:
    """Return the batch size to start from when DestVI deconvolves that many spots.

    ``min(128, n_spots / 10)``, taken to the nearest power of two from 4 up; half-way, to the
    smaller. So DestVI takes about ten steps an epoch, or more, where its default of 128 would give
    a sample of 189 spots two.

    The rule comes from a study of DestVI's batch size on benchmarks of spatial deconvolution. It
    is printed there as ``max(n / 10, 128)``, but its text makes clear that ``min`` is meant.

    Parameters
    ----------
    n_spots
        Number of spots that DestVI is trained on, at least 1.

    Returns
    -------
    int
        4, 8, 16, 32, 64 or 128.

    Raises
    ------
    InputError
        If ``n_spots`` is not a whole number of at least 1.

    Examples
    --------
    >>> destvi_batch_size(189), destvi_batch_size(3000)
    (16, 128)
    """
    wanted = _whole("n_spots", n_spots) / _SPOTS_PER_BATCH_SPOT
    sizes = [_SMALLEST_BATCH]
    while sizes[-1] < _LARGEST_BATCH:
        sizes.append(2 * sizes[-1])
    return min(sizes, key=lambda size: (abs(size - wanted), size))


def scaled_lr(batch_size: int) -> float:
    """Return the learning rate of SCVI that goes with a batch size.

    ``0.001 * batch_size / 128``: in proportion to the batch size, from scvi-tools' own pair of
    0.001 and 128. A step on a batch of half the size then moves half as far, and an epoch, of
    twice as many steps, about as far as before.

    Parameters
    ----------
    batch_size
        Cells in a batch, at least 1.

    Raises
    ------
    InputError
        If ``batch_size`` is not a whole number of at least 1.

    Examples
    --------
    >>> scaled_lr(128), scaled_lr(512)
    (0.001, 0.004)
    """
    return _LR_AT_LARGEST_BATCH * _whole("batch_size", batch_size) / _LARGEST_BATCH


def _whole(name: str, value: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, but got {value!r}.")
    return int(value)
