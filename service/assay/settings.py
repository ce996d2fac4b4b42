"""Process settings: the environment's `ASSAY_*` variables, read once into a frozen value."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from assay.errors import SettingsError
from assay.service_links import find_service_links
from assay.setting_values import (
    MAKE_KEY,
    MIN_KEY_LENGTH,
    UNIX,
    check_device,
    check_hosts,
    check_keys,
    check_names,
    check_origins,
    check_root_path,
    read_runs,
)

logger = logging.getLogger(__name__)

PREFIX = "ASSAY_"
CLIENT_VARIABLES = frozenset({"ASSAY_URL", "ASSAY_API_KEY"})
REWARD_PREFIX = "ASSAY_REWARD_"  # variables of the client's reward functions
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
YEAR_SECONDS = 31_536_000


Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=YEAR_SECONDS, allow_inf_nan=False)]
Device = Annotated[str, AfterValidator(check_device)]


class Settings(BaseModel):
    """The settings of one process. Field `x` is the variable `ASSAY_X`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: Annotated[tuple[str, ...], AfterValidator(check_hosts)] = Field(
        ("127.0.0.1",),
        description="The addresses to listen on, separated by commas: `127.0.0.1`; `0.0.0.0`, all "
        "of IPv4; `::`, all of IPv6 and IPv4; `unix:/run/assay.sock`, a Unix socket.",
    )
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    socket_mode: str = Field(
        "660", pattern="^[0-7]{3}$", description="The permissions of Unix sockets, in octal."
    )
    root_path: Annotated[str, AfterValidator(check_root_path)] = Field(
        "",
        description="The path below which a proxy serves this server, such as `/assay`. The proxy "
        "may strip it or not.",
    )
    models: tuple[str, ...] = Field(
        (),
        description="The models to serve, separated by commas: `code@2,nli`. Empty: all embedded "
        "models and all of your own.",
    )
    repository: tuple[Path, ...] = Field(
        (), description="Folders with your own model cards, separated by commas."
    )
    device: Device = Field(
        "cpu", description="The device, as Torch names it: `cpu`, `cuda`, `cuda:1`."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="The weights' type: `float32`, `bfloat16` or `float16`; heads stay float32.",
    )
    deterministic: bool = Field(
        False,
        description="Make scores bit-equal whatever else is in the batch; verified at start.",
    )
    redis_url: SecretStr | None = Field(
        None, description="A Redis that shares scores between processes: `redis://host:6379/0`."
    )
    redis_secret: SecretStr | None = Field(
        None,
        min_length=MIN_KEY_LENGTH,
        description="A secret of at least 16 characters that all servers of one Redis have. "
        "Without it no score there can be read or chosen.",
    )
    redis_timeout: Seconds = Field(
        0.25, description="Seconds to wait for Redis before a lookup counts as a miss."
    )
    redis_ttl: Positive = Field(
        604_800, le=YEAR_SECONDS, description="Seconds for which a score stays in Redis."
    )
    redis_wait: float = Field(
        0.0,
        ge=0,
        le=YEAR_SECONDS,
        allow_inf_nan=False,
        description="Seconds to wait for a score that another replica is computing, at most half "
        "of the time left. 0: replicas compute independently.",
    )
    cache_bytes: int = Field(
        268_435_456,
        ge=0,
        description="Maximum bytes of scores cached in memory; 0 disables the cache.",
    )
    prepared_bytes: int = Field(
        67_108_864,
        ge=0,
        description="Maximum bytes of prepared items cached in memory; 0 disables the cache.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], AfterValidator(check_keys)] = Field(
        (),
        description="API keys with all scopes, separated by commas, of at least 16 characters. "
        "When keys are set, every route requires one, except the probes and the pages that contain "
        "no data: the dashboard's static files, "
        "`/docs`, `/redoc`, `/openapi.json` and their assets.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="A TOML file of API keys with names and scopes, read again when it changes.",
    )
    key_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="Tokens a second of one key's name, cached ones included. Unset: no limit.",
    )
    key_concurrency: Positive | None = Field(
        None,
        description="Concurrent scoring requests of one key's name. Unset: no limit.",
    )
    private_cache: bool = Field(
        False,
        description="Share scores only between keys of one name.",
    )
    probes: Literal["open", "keyed"] = Field(
        "open",
        description="`open`: the probes (`/healthz`, `/readyz`, their aliases) need no API key, "
        "but name no models and no reasons without one. `keyed`: they need one.",
    )
    allowed_hosts: Annotated[tuple[str, ...], AfterValidator(check_names)] = Field(
        (),
        description="Names of the server, without ports, separated by commas; `*` for any. "
        "Addresses and names without a dot are allowed too. Unset: any name, except "
        "on loopback without keys.",
    )
    cors_origins: Annotated[tuple[str, ...], AfterValidator(check_origins)] = Field(
        (),
        description="Origins whose web pages may call this server, separated by commas: "
        "`https://example.org`, or `*` for all.",
    )
    max_items: Positive = Field(1024, description="Maximum number of items in one request.")
    max_body_bytes: Positive = Field(33_554_432, description="Maximum bytes of one request's body.")
    max_request_tokens: Positive = Field(
        2_097_152, description="Maximum number of tokens in one request."
    )
    max_queue_tokens: Positive = Field(
        4_194_304,
        description="Maximum tokens that wait for one model; beyond them requests get a 429.",
    )
    max_prepare_bytes: Positive = Field(
        134_217_728,
        description="Maximum bytes of items that wait to be prepared; beyond them requests get a "
        "429.",
    )
    batch_tokens: Positive | None = Field(
        None,
        description="Maximum number of tokens in one batch. Unset: 4,096 on a CPU, else "
        "`max_batch_tokens` of the model's card.",
    )
    timeout: Seconds = Field(
        600.0, description="Seconds that a request without `X-Assay-Timeout-Ms` may take."
    )
    prepare_threads: Positive = Field(
        2, description="CPU threads for chat templates and tokenization."
    )
    runs: Annotated[Literal["off"] | SecretStr | Path | None, BeforeValidator(read_runs)] = Field(
        None,
        description="The file in which the health data of training runs are stored, or `off`; for "
        "several replicas, the URL of a PostgreSQL database that they share: "
        "`postgresql://user:password@host/database`. Unset: `assay/runs.db` in `XDG_STATE_HOME` or "
        "`~/.local/state`. If the file cannot be used, a temporary one is.",
    )
    evaluation_seconds: Seconds = Field(
        5.0, description="Minimum seconds between two evaluations of one run's rules."
    )
    alert_url: SecretStr | None = Field(
        None,
        description="A URL that receives a POST whenever an alert of a run begins, changes its "
        "severity or ends.",
    )
    alert_secret: SecretStr | None = Field(
        None,
        description="The secret that signs these POSTs according to Standard Webhooks: `whsec_` "
        "and 24 to 64 random bytes in base64.",
    )
    traces: bool = Field(
        False,
        description="Send traces with OpenTelemetry, which the extra `traces` installs. The "
        "standard `OTEL_*` variables set where to, and which.",
    )
    max_connections: Positive = Field(
        8192,
        description="Maximum open connections, descriptors permitting. Beyond them the one that "
        "has kept the server waiting longest is closed.",
    )
    max_held_bytes: Positive = Field(
        536_870_912,
        description="Maximum bytes of all unanswered requests' bodies; beyond them the body that "
        "has been incomplete longest gets a 503.",
    )
    io_timeout: Seconds = Field(
        30.0,
        description="Seconds that a client may take to send headers, the next part of a body (1 "
        "KiB for each second), or to read.",
    )
    keep_alive: Positive = Field(
        75,
        le=YEAR_SECONDS,
        description="Seconds for which an idle connection stays open. Keep it longer than the "
        "proxy's own.",
    )
    shutdown_delay: float = Field(
        0.0,
        ge=0,
        le=YEAR_SECONDS,
        allow_inf_nan=False,
        description="Seconds between a stop signal and the closed listener. Meanwhile `/readyz` "
        "answers 503 and requests are served.",
    )
    load_timeout: Seconds = Field(
        3600.0,
        description="Seconds in which a model must be loaded, a download included. One that takes "
        "longer has failed, and the others are served.",
    )
    drain_timeout: Seconds = Field(
        30.0, description="Seconds in which to finish accepted requests at shutdown."
    )

    @property
    def has_keys(self) -> bool:
        """Whether requests need an API key."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches every address."""
        return all(map(is_private, self.host))


def is_private(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    return host.startswith(UNIX) or host.strip("[]") in LOOPBACK


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings in `environment`. Variables of Kubernetes are ignored with a warning.

    Raises:
        SettingsError: a variable with the prefix is unknown or cannot be parsed. The text names
            it and the accepted values, and never repeats a secret.
    """
    links = find_service_links(environment)
    if links:
        logger.warning(
            "ignored, as Kubernetes sets them for services named assay: %s", ", ".join(links)
        )
    given: dict[str, str | Path | None] = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in links
    }
    unknown = sorted(set(given) - set(Settings.model_fields))
    if unknown:
        names = ", ".join(variable_name(field) for field in unknown)
        raise SettingsError(f"unknown {names}", hint=" ".join(_hints_for_unknown(unknown)))
    given.setdefault("runs", _state_file(environment))
    lists = {"host", "models", "repository", "api_keys", "allowed_hosts", "cors_origins"}
    fields = {
        name: _split(text) if name in lists and isinstance(text, str) else text
        for name, text in given.items()
    }
    if fields.get("api_keys") == ():
        raise SettingsError(
            f"{variable_name('api_keys')}: it is set and has no key: unset it, or {MAKE_KEY}"
        )
    try:
        return Settings.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error) from None


def variable_name(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def is_client_variable(name: str) -> bool:
    """Return whether the client reads this variable, and not the server."""
    return name in CLIENT_VARIABLES or name.startswith(REWARD_PREFIX)


def _hints_for_unknown(unknown: Sequence[str]) -> Iterator[str]:
    """Yield the parts of the hint for fields that are no settings."""
    clients = [name for name in map(variable_name, unknown) if is_client_variable(name)]
    if clients:
        yield f"only the client reads {', '.join(clients)}: unset them for the server."
    close: dict[str, None] = {}
    for field in unknown:
        if not variable_name(field).startswith(REWARD_PREFIX):
            matches = get_close_matches(field, Settings.model_fields, n=1)
            close.update(dict.fromkeys(map(variable_name, matches)))
    if close:
        yield f"did you mean {', '.join(close)}?"
    yield "known variables: " + ", ".join(map(variable_name, Settings.model_fields))


def _refusal(error: ValidationError) -> SettingsError:
    """Return the error for values that cannot be parsed; its hint describes their variables."""
    problems = error.errors(include_url=False, include_input=False)
    fields = [str(problem["loc"][0]) for problem in problems]
    texts = [problem["msg"].removeprefix("Value error, ") for problem in problems]
    detail = "; ".join(
        f"{variable_name(field)}: {text}" for field, text in zip(fields, texts, strict=True)
    )
    hint = " ".join(
        f"{variable_name(field)}: {Settings.model_fields[field].description}"
        for field in dict.fromkeys(fields)
    )
    return SettingsError(detail, hint=hint)


def _state_file(environment: Mapping[str, str]) -> Path | None:
    """Return the default file for run health, in the user's XDG state directory."""
    state, home = environment.get("XDG_STATE_HOME"), environment.get("HOME")
    if state and Path(state).is_absolute():
        return Path(state) / "assay" / "runs.db"
    return Path(home) / ".local" / "state" / "assay" / "runs.db" if home else None


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
