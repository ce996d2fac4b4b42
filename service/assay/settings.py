"""Process settings: the environment's `ASSAY_*` variables, read once into one frozen value."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from assay.errors import SettingsError

PREFIX = "ASSAY_"
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """What one process serves and within which bounds. Field `x` is the variable `ASSAY_X`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    models: tuple[str, ...] = Field(
        (), description="What to serve, by comma: `code@2,nli`. Empty: all embedded and your own."
    )
    repository: tuple[Path, ...] = Field(
        (), description="Folders with model cards of your own, by comma."
    )
    device: str = Field("cpu", description="Torch's name of the device: `cpu`, `cuda`, `cuda:1`.")
    dtype: str = Field(
        "float32", description="`float32`, `bfloat16` or `float16`; heads stay fp32."
    )
    deterministic: bool = Field(
        False, description="Bit-equal scores whatever else is in the batch, proven at start."
    )
    redis_url: SecretStr | None = Field(
        None, description="A Redis to share scores through: `redis://host:6379/0`."
    )
    redis_timeout: Seconds = Field(0.25, description="Seconds to wait for Redis before a miss.")
    redis_ttl: Positive = Field(604_800, description="Seconds a score stays in Redis.")
    cache_bytes: int = Field(
        268_435_456, ge=0, description="Bytes of scores kept in memory; 0 switches that off."
    )
    prepared_bytes: int = Field(
        67_108_864, ge=0, description="Bytes of prepared items kept in memory; 0 switches that off."
    )
    api_keys: tuple[SecretStr, ...] = Field(
        (),
        description="Keys, by comma. When set, every route wants one of them; only the page's own "
        "files, which tell nothing, do not.",
    )
    max_items: Positive = Field(1024, description="Items in one request.")
    max_body_bytes: Positive = Field(33_554_432, description="Bytes in one request's body.")
    max_request_tokens: Positive = Field(2_097_152, description="Tokens in one request.")
    max_queue_tokens: Positive = Field(
        4_194_304, description="Tokens waiting for one model; beyond it requests get a 429."
    )
    batch_tokens: Positive | None = Field(
        None,
        description="Tokens of one batch at most. Unset: 4,096 on a CPU, else as the card says.",
    )
    timeout: Seconds = Field(60.0, description="Seconds a request may take if it does not say.")
    prepare_threads: Positive = Field(2, description="CPU threads for templates and tokenisation.")
    runs: Literal["off"] | Path | None = Field(
        None,
        description="The file in which run health is kept, or `off`. Unset: `assay/runs.db` in "
        "`XDG_STATE_HOME` or `~/.local/state`; where no file can be used, the process's own.",
    )
    watch_seconds: Seconds = Field(
        5.0, description="Seconds between two looks at the rules of one run."
    )
    alert_url: SecretStr | None = Field(
        None, description="A URL that gets a POST for each alert of a run that begins or ends."
    )
    alert_secret: SecretStr | None = Field(
        None,
        description="Signs these POSTs as Standard Webhooks does: `whsec_` and 24 to 64 random "
        "bytes in base64.",
    )
    drain_timeout: Seconds = Field(30.0, description="Seconds to finish accepted work at shutdown.")


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings that `environment` spells out.

    Raises:
        SettingsError: a variable with the prefix is unknown or cannot be parsed; the text says
            which and what it may be, and never repeats a secret.
    """
    given: dict[str, str | Path | None] = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX)
    }
    unknown = sorted(set(given) - set(Settings.model_fields))
    if unknown:
        known = ", ".join(variable_name(field) for field in Settings.model_fields)
        names = ", ".join(variable_name(field) for field in unknown)
        raise SettingsError(f"unknown {names}", hint=f"known variables: {known}")
    given.setdefault("runs", _state_file(environment))
    lists = {"models", "repository", "api_keys"}
    fields = {
        name: _split(text) if name in lists and isinstance(text, str) else text
        for name, text in given.items()
    }
    try:
        return Settings.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{variable_name(str(problem['loc'][0]))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(problems) from None


def variable_name(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def _state_file(environment: Mapping[str, str]) -> Path | None:
    """Where this user's programs keep what should outlive them, by the XDG base directories."""
    state, home = environment.get("XDG_STATE_HOME"), environment.get("HOME")
    if state and Path(state).is_absolute():
        return Path(state) / "assay" / "runs.db"
    return Path(home) / ".local" / "state" / "assay" / "runs.db" if home else None


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
