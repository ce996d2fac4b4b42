"""What a reward is told: by arguments, or by the environment where a trainer passes none."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from typing import Any, Literal, get_args

Policy = Literal["raise", "none", "skip"]

DEFAULT_FIELDS: Mapping[str, str] = {"prompt": "prompt", "response": "response"}


@dataclass(frozen=True)
class Settings:
    """The settings of a reward. Frozen, comparable and picklable (the key travels along).

    Args:
        model: `name@version`; pin the version for a run.
        on_failure: what an item without a score becomes: `raise` an error, `none`: the trainer
            gets None in its place, `skip`: the trainer leaves it out, as far as it can. Which of
            them a trainer bears, its module says. There is no default.
        url: the server's address or addresses; without it `ASSAY_URL` holds.
        api_key: without it `ASSAY_API_KEY` holds.
        timeout: seconds for one call in all.
        max_retries: how often a call is tried again.
        options: the server's, such as `{"truncation": "left"}`.
        fields: for each field of an item, what it is taken from: `prompt`, `response`, or a
            column that the trainer passes along. `{"prompt": "prompt", "response": "response"}`
            unless given.
        run: the run's name for the server's monitors; without it none is sent.
        split: of that run.

    Raises:
        ValueError: a setting is missing or cannot be meant.
    """

    model: str
    on_failure: Policy
    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    max_retries: int = 4
    options: Mapping[str, Any] | None = None
    fields: Mapping[str, str] | None = None
    run: str | None = None
    split: str = "train"

    def __post_init__(self) -> None:
        if not (isinstance(self.model, str) and self.model):
            raise ValueError("model must name the model that scores, such as 'code@2'")
        if self.on_failure not in get_args(Policy):
            raise ValueError(
                "on_failure must say what a missing score becomes: 'raise', 'none' or 'skip'"
            )

    def __hash__(self) -> int:
        return hash((self.model, self.on_failure, self.url, self.run, self.split))

    def run_at(self, step: Any) -> Mapping[str, Any] | None:
        """The `run` of a request at this step, None where no run is named."""
        if self.run is None:
            return None
        named = {"id": self.run, "split": self.split}
        return {**named, "step": int(step)} if step is not None else named


def from_environment(defaults: Mapping[str, Any], **given: Any) -> Settings:
    """The settings that are given, those of the environment for all others, and then the defaults.

    They are `ASSAY_REWARD_MODEL`, `ASSAY_REWARD_ON_FAILURE`, `ASSAY_REWARD_RUN`,
    `ASSAY_REWARD_TIMEOUT` (seconds), `ASSAY_REWARD_OPTIONS` (JSON) and `ASSAY_REWARD_FIELDS`
    (`evidence=context,response=response`); the client itself reads `ASSAY_URL` and `ASSAY_API_KEY`.

    Raises:
        ValueError: as `Settings`, or a variable cannot be read.
    """
    chosen = {name: _plain(value) for name, value in given.items() if value is not None}
    for name, variable, read in _VARIABLES:
        text = os.environ.get(variable)
        if name not in chosen and text:
            chosen[name] = _read(variable, read, text)
    chosen = {**defaults, **chosen}
    for name, variable in (
        ("model", "ASSAY_REWARD_MODEL"),
        ("on_failure", "ASSAY_REWARD_ON_FAILURE"),
    ):
        if name not in chosen:
            raise ValueError(f"{name} is not given: set {variable}, or pass {name} if you can")
    return Settings(**chosen)


def split_settings(given: Mapping[str, Any], others: Collection[str]) -> dict[str, Any]:
    """Those of a trainer's keyword arguments that are settings.

    Args:
        given: all of them.
        others: what the trainer itself passes along.

    Raises:
        ValueError: one is neither: a setting that is misspelt must not be silently passed over.
    """
    names = {one.name for one in fields_of(Settings)}
    unknown = sorted(set(given) - names - set(others))
    if unknown:
        raise ValueError(f"{unknown[0]} is no setting; there are: {', '.join(sorted(names))}")
    return {name: value for name, value in given.items() if name in names}


def _read(variable: str, read: Any, text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        pass
    raise ValueError(f"{variable} cannot be read")


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError
    return value


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError
    return {name.strip(): source.strip() for name, _, source in pairs}


def _plain(value: Any) -> Any:
    """Mappings of a trainer's configuration library as dicts."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return value


_VARIABLES = (
    ("model", "ASSAY_REWARD_MODEL", str),
    ("on_failure", "ASSAY_REWARD_ON_FAILURE", str),
    ("run", "ASSAY_REWARD_RUN", str),
    ("timeout", "ASSAY_REWARD_TIMEOUT", float),
    ("options", "ASSAY_REWARD_OPTIONS", _object),
    ("fields", "ASSAY_REWARD_FIELDS", _pairs),
)
