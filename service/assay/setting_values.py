"""Checks of the values of settings."""

import re
from pathlib import Path

from pydantic import SecretStr

UNIX = "unix:"
DATABASE_SCHEMES = ("postgresql:", "postgres:")
MAX_SOCKET_PATH_BYTES = 107
MIN_KEY_LENGTH = 16
MAKE_KEY = "make one with `openssl rand -hex 32`"


def check_device(device: str) -> str:
    """Check the name of a device."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
        raise ValueError("must be cpu, cuda or cuda:N with a number N, such as cuda:1")
    return device


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Check the addresses to listen on."""
    if not hosts:
        raise ValueError("must name an address, such as 127.0.0.1")
    for host in hosts:
        path = host.removeprefix(UNIX)
        if path != host and (
            not path.startswith("/") or len(path.encode()) > MAX_SOCKET_PATH_BYTES
        ):
            raise ValueError(
                "a Unix socket is unix: and an absolute path of at most "
                f"{MAX_SOCKET_PATH_BYTES} bytes, such as unix:/run/assay.sock"
            )
    return hosts


def check_root_path(path: str) -> str:
    """Return a path without a slash at its end."""
    path = path.rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", path):
        raise ValueError("must be a path such as /assay")
    return path


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Check origins of web pages."""
    for origin in origins:
        if not re.fullmatch(r"\*|https?://[A-Za-z0-9.\[\]:_-]+", origin):
            raise ValueError("an origin is like https://example.org or http://localhost:3000, or *")
    return origins


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check names of the server."""
    for name in names:
        if not re.fullmatch(r"\*|[A-Za-z0-9._-]+", name):
            raise ValueError("a name is like assay.example.org, without a port, or *")
    return names


def check_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check API keys."""
    texts = [key.get_secret_value() for key in keys]
    for number, text in enumerate(texts, 1):
        if len(text) < MIN_KEY_LENGTH:
            raise ValueError(
                f"key {number} is shorter than {MIN_KEY_LENGTH} characters: {MAKE_KEY}"
            )
        if not re.fullmatch("[!-~]+", text):
            raise ValueError(f"key {number} has characters that no header can carry: {MAKE_KEY}")
    if len(set(texts)) < len(texts):
        raise ValueError("a key is given twice")
    return keys


def read_runs(value: object) -> object:
    """Return the path of a file, or the URL of a database, which is a secret.

    Raises:
        ValueError: it is the URL of something else; the message does not repeat it.
    """
    if not isinstance(value, str) or value == "off":
        return value
    if value.startswith(DATABASE_SCHEMES):
        return SecretStr(value)
    if "://" in value:  # it may hold a password, which a file's path would show in the log
        raise ValueError("a URL of a database begins with postgresql:// or postgres://")
    return Path(value)
