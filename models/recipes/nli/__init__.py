"""The recipe of `nli` and `nli-small`: cross-encoders trained on open sentence pairs."""
