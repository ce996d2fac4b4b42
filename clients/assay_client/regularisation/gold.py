"""Reaction to the advice of a gold source: more regularisation, or a new reference."""

from __future__ import annotations

from collections.abc import Sequence

from assay_client.callbacks.run_health import Firing

RAISE, RESET = "raise_regularisation", "reset_reference"


class GoldResponse:
    """Collects the actions that gold advises, for `GradientRegularisationMixin` to take.

        response = GoldResponse()
        HealthMonitorCallback(client, "exp-17", on_firing=response)

    Advice stays until gold recovers, so an action is taken again only after `cooldown` steps. A
    reset moves the reference to the present policy; it undoes nothing that the policy has learned.

    Args:
        factor: what the regularisation is multiplied by.
        max_ratio: the largest ratio, or fixed coefficient, that this leads to.
        cooldown: steps between two actions of one kind.
    """

    def __init__(self, factor: float = 2.0, max_ratio: float = 3.0, cooldown: int = 100) -> None:
        if factor <= 1 or cooldown < 1:
            raise ValueError("factor must be above 1, and cooldown at least 1 step")
        self.factor = factor
        self.max_ratio = max_ratio
        self.cooldown = cooldown
        self._taken: dict[str, int] = {}
        self._pending: list[str] = []

    def __call__(self, step: int, firing: Sequence[Firing]) -> None:
        """Note the actions that gold advises at a step."""
        advised = {rule.about[-1] for rule in firing if rule.rule == "gold" and rule.about}
        for action in sorted(advised & {RAISE, RESET}):
            last = self._taken.get(action)
            if last is None or step - last >= self.cooldown:
                self._taken[action] = step
                self._pending.append(action)

    def take(self) -> list[str]:
        """Return the actions that are due, once."""
        due, self._pending = self._pending, []
        return due
