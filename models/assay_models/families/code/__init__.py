"""The code reward model: programs scored by a classifier and by the surprisal of its decoder."""
