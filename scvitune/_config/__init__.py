"""The parts of `scvitune.config`, which is where to import them from."""
