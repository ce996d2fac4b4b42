"""Settings of a reward: from arguments, or from the environment if a trainer passes none."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from typing import Any, Literal, get_args

Policy = Literal["raise", "none", "skip"]

DEFAULT_FIELDS: Mapping[str, str] = {"prompt": "prompt", "response": "response"}

_EXAMPLES = {
    "options": 'such as {"truncation": "left"}',
    "fields": 'such as {"prompt": "question", "response": "response"}',
}


@dataclass(frozen=True)
class Settings:
    """Settings of a reward. Frozen, comparable and picklable (the API key is pickled too).

    Args:
        model: `name@version`; pin the version for a run.
        on_failure: the policy for an item without a score: `raise` an error, `none`: the trainer
            gets None in its place, `skip`: the trainer leaves it out, as far as it can. The
            trainer's module documents which of them it supports. There is no default.
        url: the server's address or addresses; the default is `ASSAY_URL`.
        api_key: the default is `ASSAY_API_KEY`.
        timeout: seconds for one call in all.
        max_retries: retries of a call.
        startup_timeout: seconds to wait, before the first call, until a server that is starting is
            ready; 0: the first call is sent at once, and fails where no server listens yet.
        options: the server's, such as `{"truncation": "left"}`.
        fields: the source of each field of an item: `prompt`, `response`, or a column that the
            trainer passes along. `{"prompt": "prompt", "response": "response"}` unless given.
        run: the run's name for the server's monitors; without it none is sent.
        split: of that run.

    Raises:
        ValueError: a setting is missing or invalid.
    """

    model: str
    on_failure: Policy
    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 600.0
    max_retries: int = 4
    startup_timeout: float = 0.0
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
        if self.run is not None and not (isinstance(self.run, str) and self.run):
            raise ValueError("run must be the run's name; the trainer passes the step")
        for name in ("options", "fields"):
            if not isinstance(getattr(self, name), (Mapping, type(None))):
                raise ValueError(f"{name} must be a dict, {_EXAMPLES[name]}")
        if not 0 <= self.startup_timeout < math.inf:
            raise ValueError("startup_timeout must be a number of seconds, 0 for no wait")

    def __hash__(self) -> int:
        return hash((self.model, self.on_failure, self.url, self.run, self.split))

    def run_at(self, step: Any) -> Mapping[str, Any] | None:
        """Return the `run` of a request at this step; None if no run is named."""
        if self.run is None:
            return None
        run = {"id": self.run, "split": self.split}
        return {**run, "step": int(step)} if step is not None else run


def from_environment(defaults: Mapping[str, Any], **given: Any) -> Settings:
    """Return the given settings; for all others those of the environment, else the defaults.

    The variables are `ASSAY_REWARD_MODEL`, `ASSAY_REWARD_ON_FAILURE`, `ASSAY_REWARD_RUN`,
    `ASSAY_REWARD_TIMEOUT` and `ASSAY_REWARD_STARTUP_TIMEOUT` (seconds), `ASSAY_REWARD_OPTIONS`
    (JSON) and `ASSAY_REWARD_FIELDS` (`evidence=context,response=response`); the client itself reads
    `ASSAY_URL` and `ASSAY_API_KEY`.

    Raises:
        ValueError: as `Settings`, or a variable cannot be read.
    """
    settings = {name: _to_dict(value) for name, value in given.items() if value is not None}
    for name, variable, parse in _VARIABLES:
        text = os.environ.get(variable)
        if name not in settings and text:
            settings[name] = _parse(variable, parse, text)
    settings = {**defaults, **settings}
    for name, variable, values in (
        ("model", "ASSAY_REWARD_MODEL", "NAME@VERSION"),
        ("on_failure", "ASSAY_REWARD_ON_FAILURE", "raise, none or skip"),
    ):
        if name not in settings:
            raise ValueError(f"{name} is not given: set {variable} to {values}, or pass {name}=")
    return Settings(**settings)


def split_settings(given: Mapping[str, Any], others: Collection[str]) -> dict[str, Any]:
    """Return those of a trainer's keyword arguments that are settings.

    Args:
        given: all of them.
        others: the arguments that the trainer itself passes along.

    Raises:
        ValueError: an argument is neither: a misspelt setting must not be ignored.
    """
    names = {field.name for field in fields_of(Settings)}
    unknown = sorted(set(given) - names - set(others))
    if unknown:
        raise ValueError(f"{unknown[0]} is no setting; there are: {', '.join(sorted(names))}")
    return {name: value for name, value in given.items() if name in names}


def _parse(variable: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        pass
    raise ValueError(f"{variable} cannot be read")


def _parse_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError
    return value


def _parse_pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError
    return {name.strip(): source.strip() for name, _, source in pairs}


def _to_dict(value: Any) -> Any:
    """Convert mappings of a trainer's configuration library to dicts."""
    if isinstance(value, Mapping):
        return {str(name): _to_dict(inner) for name, inner in value.items()}
    return value


_VARIABLES = (
    ("model", "ASSAY_REWARD_MODEL", str),
    ("on_failure", "ASSAY_REWARD_ON_FAILURE", str),
    ("run", "ASSAY_REWARD_RUN", str),
    ("timeout", "ASSAY_REWARD_TIMEOUT", float),
    ("startup_timeout", "ASSAY_REWARD_STARTUP_TIMEOUT", float),
    ("options", "ASSAY_REWARD_OPTIONS", _parse_object),
    ("fields", "ASSAY_REWARD_FIELDS", _parse_pairs),
)
