"""Callbacks that check a run's health during training. They import no trainer."""
