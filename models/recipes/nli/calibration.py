"""Temperature scaling of the logits, and the expected calibration error."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def scale_by_temperature(logits: Floats, temperature: float) -> Floats:
    """Return softmax(logits / temperature), [rows, labels]."""
    scaled = logits / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def log_loss(probabilities: Floats, labels: Integers) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_label, 1e-12)).mean())


def fit_temperature(logits: Floats, labels: Integers) -> float:
    """Return the temperature of the lowest log-loss (Guo et al., 2017), to three decimals.

    The loss has one minimum in the inverse temperature, so a golden-section search finds it.
    """
    low, high, ratio = np.log(0.1), np.log(10.0), (np.sqrt(5) - 1) / 2
    while high - low > 1e-5:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        losses = [
            log_loss(scale_by_temperature(logits, float(np.exp(at))), labels)
            for at in (left, right)
        ]
        low, high = (low, right) if losses[0] < losses[1] else (left, high)
    return round(float(np.exp((low + high) / 2)), 3)


def expected_calibration_error(probabilities: Floats, labels: Integers, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins of confidence, each
    weighted by its share of the rows."""
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = np.bincount(bin_of, weights=is_right - confidence, minlength=bins)
    return float(np.abs(sums).sum() / len(labels))


def in_fitting_half(premise: str) -> bool:
    """Return whether a premise belongs to the half that the temperature is fitted on."""
    return hashlib.sha256(premise.encode()).digest()[0] % 2 == 0
