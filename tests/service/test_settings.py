"""Settings: parsing of the environment, errors, and defaults."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from assay.api import openapi
from assay.errors import SettingsError
from assay.service_links import find_service_links
from assay.settings import (
    CLIENT_VARIABLES,
    Settings,
    read_settings,
    variable_name,
)

SERVICE_LINKS = {
    "ASSAY_SERVICE_HOST": "10.0.0.1",
    "ASSAY_SERVICE_PORT": "8000",
    "ASSAY_SERVICE_PORT_HTTP": "8000",
    "ASSAY_PORT": "tcp://10.0.0.1:8000",
    "ASSAY_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "ASSAY_PORT_8000_TCP_PROTO": "tcp",
    "ASSAY_PORT_8000_TCP_PORT": "8000",
    "ASSAY_PORT_8000_TCP_ADDR": "10.0.0.1",
    "ASSAY_GPU_SERVICE_HOST": "fd00::1",
    "ASSAY_GPU_PORT": "udp://[fd00::1]:53",
    "ASSAY_GPU_PORT_53_UDP": "udp://[fd00::1]:53",
    "ASSAY_GPU_PORT_9_SCTP_ADDR": "fd00::1",
    "ASSAY_REWARD_SERVICE_HOST": "10.0.0.2",
    "ASSAY_REDIS_URL_PORT": "tcp://10.0.0.3:6379",
}


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = read_settings({"PATH": "/bin"})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.max_items) == (("127.0.0.1",), 8000, 1024)


def test_variables_are_parsed_and_lists_are_split() -> None:
    settings = read_settings({"ASSAY_PORT": "9000", "ASSAY_MODELS": "code@1, nli ,"})
    assert (settings.port, settings.models) == (9000, ("code@1", "nli"))


def test_an_unknown_variable_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="ASSAY_PROT") as failure:
        read_settings({"ASSAY_PROT": "9000"})
    assert (failure.value.hint or "").startswith("did you mean ASSAY_PORT? known variables: ASSAY_")


def test_an_unknown_variable_unlike_any_other_has_no_suggestion() -> None:
    with pytest.raises(SettingsError, match="ASSAY_ZZZ") as failure:
        read_settings({"ASSAY_ZZZ": "1"})
    assert (failure.value.hint or "").startswith("known variables: ")


def test_the_hint_names_the_variables_of_the_client() -> None:
    with pytest.raises(SettingsError, match="unknown ASSAY_API_KEY, ASSAY_REWARD_TIMEOUT") as error:
        read_settings({"ASSAY_API_KEY": "hush", "ASSAY_REWARD_TIMEOUT": "1", "ASSAY_URL": "u"})
    hint = error.value.hint or ""
    clients = "only the client reads ASSAY_API_KEY, ASSAY_REWARD_TIMEOUT, ASSAY_URL"
    assert hint.startswith(
        f"{clients}: unset them for the server. did you mean ASSAY_API_KEYS? known"
    )
    assert "hush" not in hint


@pytest.mark.parametrize("name", SERVICE_LINKS)
def test_a_variable_of_a_kubernetes_service_is_ignored(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_settings({name: SERVICE_LINKS[name], "ASSAY_MAX_ITEMS": "7"}).max_items == 7
    (message,) = caplog.messages
    assert message.endswith(f": {name}")


def test_all_variables_of_kubernetes_services_are_named_in_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert read_settings(SERVICE_LINKS) == Settings()
    (message,) = caplog.messages
    assert message.endswith(", ".join(sorted(SERVICE_LINKS)))


@pytest.mark.parametrize(
    "name", ["ASSAY_HOTS", "ASSAY_PROT", "ASSAY_GPU_PORT", "ASSAY_PORT_TCP", "ASSAY_SERVICE"]
)
def test_a_variable_that_no_kubernetes_service_has_is_an_error(name: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown {name}"):
        read_settings({name: "8000"})


def test_a_port_that_is_neither_a_number_nor_of_a_service_is_an_error() -> None:
    with pytest.raises(SettingsError, match="ASSAY_PORT"):
        read_settings({"ASSAY_PORT": "http://10.0.0.1:8000"})


def test_no_variable_of_the_client_is_taken_for_one_of_a_service() -> None:
    names = {*CLIENT_VARIABLES, "ASSAY_REWARD_MODEL", "ASSAY_REWARD_TIMEOUT"}
    assert find_service_links(dict.fromkeys(names, "tcp://10.0.0.1:8000")) == []


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("host", "0.0.0.0", ("0.0.0.0",)),
        ("host", "::, unix:/run/assay.sock", ("::", "unix:/run/assay.sock")),
        ("root_path", "/assay/", "/assay"),
        ("root_path", "/", ""),
        ("root_path", "/a/b-c", "/a/b-c"),
        ("cors_origins", "https://a.org,http://[::1]:3000", ("https://a.org", "http://[::1]:3000")),
        ("cors_origins", "*", ("*",)),
        ("probes", "keyed", "keyed"),
        ("socket_mode", "600", "600"),
        ("shutdown_delay", "0", 0.0),
        ("keep_alive", "5", 5),
    ],
)
def test_a_setting_of_the_listener_is_read(name: str, text: str, value: object) -> None:
    assert getattr(read_settings({variable_name(name): text}), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HOST", ""),
        ("HOST", "unix:run/assay.sock"),
        ("HOST", f"unix:/{'x' * 107}"),
        ("ROOT_PATH", "assay"),
        ("ROOT_PATH", "/a?b"),
        ("ROOT_PATH", "//a"),
        ("CORS_ORIGINS", "example.org"),
        ("CORS_ORIGINS", "https://example.org/page"),
        ("PROBES", "closed"),
        ("SOCKET_MODE", "0x1"),
        ("SHUTDOWN_DELAY", "-1"),
        ("KEEP_ALIVE", "0"),
        ("TIMEOUT", "1e300"),
        ("REDIS_TTL", "1000000000000"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_that_describes_the_setting(
    name: str, text: str
) -> None:
    with pytest.raises(SettingsError, match=f"ASSAY_{name}: ") as failure:
        read_settings({f"ASSAY_{name}": text})
    assert (failure.value.hint or "").startswith(f"ASSAY_{name}: ")


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_device_is_the_cpu_or_a_cuda_device(device: str) -> None:
    assert read_settings({"ASSAY_DEVICE": device}).device == device


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:x", "CUDA", "", "cuda:1\n", "cuda:\u0661"]
)
def test_another_device_is_an_error_that_names_the_accepted_ones(device: str) -> None:
    with pytest.raises(SettingsError, match="ASSAY_DEVICE: must be cpu, cuda or cuda:N") as failure:
        read_settings({"ASSAY_DEVICE": device})
    assert (failure.value.hint or "").startswith("ASSAY_DEVICE: The device")


@pytest.mark.parametrize("dtype", ["fp16", "float64", "int8", ""])
def test_another_dtype_is_an_error_that_names_the_accepted_ones(dtype: str) -> None:
    with pytest.raises(SettingsError) as failure:
        read_settings({"ASSAY_DTYPE": dtype})
    for name in ("float32", "bfloat16", "float16"):
        assert f"'{name}'" in str(failure.value)
        assert f"`{name}`" in (failure.value.hint or "")


@pytest.mark.parametrize(
    ("name", "text"),
    [("PORT", "http"), ("PORT", "70000"), ("TIMEOUT", "nan"), ("TIMEOUT", "0"), ("MAX_ITEMS", "0")],
)
def test_an_unparsable_variable_is_an_error_that_names_it(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"ASSAY_{name}"):
        read_settings({f"ASSAY_{name}": text})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is set and has no key"),
        (" ", "it is set and has no key"),
        (",", "it is set and has no key"),
        ("k", "key 1 is shorter than 16 characters"),
        ("hush" * 8 + ",hush", "key 2 is shorter than 16 characters"),
        ("hush" * 8 + ", " + "hush" * 8, "a key is given twice"),
        ("hush-hush hush-hush", "key 1 has characters that no header can carry"),
        ("hush-hush-hush-h\u00fcsh", "key 1 has characters that no header can carry"),
    ],
)
def test_keys_that_protect_nothing_are_errors_that_do_not_show_them(
    text: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as failure:
        read_settings({"ASSAY_API_KEYS": text})
    assert str(failure.value).startswith(f"ASSAY_API_KEYS: {problem}")
    assert "hush" not in f"{failure.value} {failure.value.hint}"
    assert "openssl rand -hex 32" in str(failure.value) or "twice" in problem


def test_a_refused_key_is_not_in_the_error_of_the_class() -> None:
    with pytest.raises(ValidationError) as failure:
        Settings.model_validate({"api_keys": ("hush",)})
    assert "hush" not in str(failure.value)


def test_a_short_redis_secret_is_an_error() -> None:
    with pytest.raises(SettingsError, match="ASSAY_REDIS_SECRET"):
        read_settings({"ASSAY_REDIS_SECRET": "hush"})


def test_secrets_are_not_in_the_repr() -> None:
    settings = read_settings({"ASSAY_API_KEYS": "hush" * 8, "ASSAY_REDIS_URL": "redis://:hush@h"})
    assert "hush" not in repr(settings)


def test_every_field_is_described_and_has_a_variable() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert variable_name(name) == f"ASSAY_{name.upper()}"


@pytest.mark.parametrize(
    ("variables", "file"),
    [
        ({}, "home/.local/state/assay/runs.db"),
        ({"XDG_STATE_HOME": "{root}/state"}, "state/assay/runs.db"),
        ({"XDG_STATE_HOME": "relative"}, "home/.local/state/assay/runs.db"),
        ({"ASSAY_RUNS": "{root}/here.db"}, "here.db"),
    ],
)
def test_the_default_runs_file_is_in_the_users_state_directory(
    tmp_path: Path, variables: dict[str, str], file: str
) -> None:
    paths = {name: text.format(root=tmp_path) for name, text in variables.items()}
    environment = {"HOME": str(tmp_path / "home"), **paths}
    assert read_settings(environment).runs == tmp_path / file


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_the_url_of_a_database_of_runs_is_a_secret(scheme: str) -> None:
    url = f"{scheme}://assay:hush@db/assay"
    settings = read_settings({"ASSAY_RUNS": url})
    assert isinstance(settings.runs, SecretStr)
    assert settings.runs.get_secret_value() == url
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("scheme", ["mysql", "postgresql+psycopg", "POSTGRESQL", " postgresql"])
def test_the_url_of_another_database_of_runs_is_refused_without_repeating_it(scheme: str) -> None:
    with pytest.raises(SettingsError, match="begins with postgresql://") as refused:
        read_settings({"HOME": "home", "ASSAY_RUNS": f"{scheme}://u:hush@h/d"})
    assert "hush" not in f"{refused.value.detail} {refused.value.hint}"


def test_runs_can_be_disabled() -> None:
    assert read_settings({"HOME": "home", "ASSAY_RUNS": "off"}).runs == "off"


def test_the_api_keys_say_which_paths_are_open() -> None:
    description = Settings.model_fields["api_keys"].description or ""
    for path in openapi.public_paths():
        if not path.startswith(openapi.ASSETS):
            assert f"`{path}`" in description
    for rest in ("probes", "dashboard's static files", "their assets"):
        assert rest in description
