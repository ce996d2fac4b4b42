"""How `nli` was made: a LoRA cross-encoder over MiniLM, trained on open sentence pairs."""
