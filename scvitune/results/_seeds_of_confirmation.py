"""What the number of a confirmation's seeds, and when they were asked for, leaves open."""

from __future__ import annotations

from scvitune.results._confirmation import seeds_compared
from scvitune.results._run_directory import Run
from scvitune.results._tables import confirmed_winner
from scvitune.results._typesetting import ADVISED_SEEDS


def added_seeds(run: Run) -> tuple[int, int] | None:
    """Return how many seeds came first and how many there are now, where some were added later.

    That is, after a confirmation with fewer had come to its end and been told.
    """
    first, now = run.seeds_at_first, (run.confirm or {}).get("seeds")
    return None if first is None or now is None or first >= now else (first, int(now))


def seed_cautions(run: Run) -> list[str]:
    """Warn of a confirmed difference that rests on few seeds, or on seeds that were added."""
    winner = confirmed_winner(run)
    if winner is None or run.default is None or winner == run.default.trial_id:
        return []
    cautions, n_seeds = [], len(seeds_compared(run, winner))
    if 1 < n_seeds < ADVISED_SEEDS:
        cautions.append(
            f"{n_seeds} seeds are few: the interval and p of the confirmation take seeds' "
            f"differences to be normally distributed, which {n_seeds} numbers cannot show, and "
            f"they may agree by luck. Ask for {ADVISED_SEEDS} or more from the start."
        )
    added = added_seeds(run)
    if added is not None:
        cautions.append(
            f"The confirmation was told after {added[0]} seeds, and more were asked for then, "
            f"{added[1]} in all: whoever adds seeds until p is small finds small ones more often "
            "than the level says. Say so where you publish it."
        )
    return cautions
