"""`assay serve`: one process, one address, the models that the environment names."""

import math
import os
import socket
from collections.abc import Mapping
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from assay import __version__
from assay.app import create_app
from assay.cli.process import Exit, LogLevel, exit_with, on_errors, tell
from assay.errors import SettingsError
from assay.scoring import ScoringService
from assay.settings import Settings, read_settings

BACKLOG = 4096
# Longer than the minute after which balancers drop an idle connection, so that they close first.
KEEP_ALIVE_SECONDS = 75
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def serve(
    host: Annotated[str | None, typer.Option(help="Instead of ASSAY_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Instead of ASSAY_PORT; 0: any free one.")
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log each request.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="What is logged.")] = LogLevel.info,
) -> None:
    """Serve models over HTTP, as the ASSAY_* variables say."""
    with on_errors((SettingsError,)):
        given = {"host": host, "port": port}
        chosen = {name: value for name, value in given.items() if value is not None}
        settings = read_settings(os.environ).model_copy(update=chosen)
        application = create_app(settings)
        listening = _listen(settings.host, settings.port)
    _announce(settings, application.state.service, listening)
    with listening:
        _run_server(_server_config(application, settings, access_log, log_level), listening)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = f"cannot listen on {host} port {port}: {error.strerror}"
        raise exit_with(Exit.STOPPED, reason, "choose another with --host and --port") from error


def _announce(settings: Settings, service: ScoringService, listening: socket.socket) -> None:
    models = ", ".join(served.card.id for served in service.models())
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = listening.getsockname()[1]
    tell(f"Assay {__version__} serves {models} on http://{host}:{port}")
    if settings.host not in LOOPBACK and not settings.api_keys:
        tell("warning: ASSAY_API_KEYS is not set: whoever reaches this address can use it")


def _server_config(
    application: FastAPI, settings: Settings, access_log: bool, log_level: LogLevel
) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        log_config=_log_config(log_level),
        log_level=log_level.value,
        access_log=access_log,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
    )


def _log_config(log_level: LogLevel) -> dict[str, Any]:
    own = {"handlers": ["default"], "level": log_level.upper(), "propagate": False}
    loggers: Mapping[str, Any] = LOGGING_CONFIG["loggers"]
    return {**LOGGING_CONFIG, "loggers": {**loggers, "assay": own, "assay_models": own}}


def _run_server(config: uvicorn.Config, listening: socket.socket) -> None:
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        return
    if not server.started:
        raise exit_with(Exit.STOPPED, "the server did not start; the log above says why")
