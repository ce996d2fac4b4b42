"""The code reward model: programs scored by a classifier and by a language model's surprisal."""
