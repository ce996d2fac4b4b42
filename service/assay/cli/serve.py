"""`assay serve`: serve the models of the settings on one address, from one process."""

import asyncio
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from assay import __version__
from assay.api.components import components_of
from assay.app import create_app
from assay.cli.memory import bound_kernel_caches, releasing_free_memory
from assay.cli.process import Exit, LogLevel, exit_with, on_errors, print_message
from assay.errors import SettingsError
from assay.scoring.service import ScoringService
from assay.served_model import DEVICE_THREAD
from assay.settings import Settings, read_settings

logger = logging.getLogger(__name__)

BACKLOG = 4096
# Longer than the minute after which load balancers drop an idle connection: they close it first.
KEEP_ALIVE_SECONDS = 75
# After the drain, so that requests that it aborted still receive their reply.
LAST_REPLIES_SECONDS = 5
# The device's thread returns to Python after each kernel. At the default of 5 ms it would often
# wait for the event loop while its cores are idle.
SWITCH_SECONDS = 0.0005
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def serve(
    checkpoint: Annotated[str | None, typer.Argument(hidden=True, metavar="")] = None,
    *,
    model: Annotated[str | None, typer.Option("--model", hidden=True)] = None,
    host: Annotated[str | None, typer.Option(help="The address; overrides ASSAY_HOST.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port; overrides ASSAY_PORT. 0: any free port."),
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log each request.")] = False,
    log_level: Annotated[
        LogLevel, typer.Option(help="The lowest severity to log.")
    ] = LogLevel.info,
) -> None:
    """Serve models over HTTP, configured by the ASSAY_* variables."""
    if checkpoint is not None or model is not None:
        raise _refuse_model(checkpoint or model or "")
    bound_kernel_caches(os.environ)
    with on_errors((SettingsError,)):
        given = {"host": host, "port": port}
        overrides = {name: value for name, value in given.items() if value is not None}
        settings = read_settings(os.environ).model_copy(update=overrides)
        death = _DeathHandler()
        application = create_app(settings, death)
        listening = _listen(settings.host, settings.port)
    _announce(settings, components_of(application).service, listening)
    sys.setswitchinterval(SWITCH_SECONDS)
    with listening, releasing_free_memory():
        config = _server_config(application, settings, access_log, log_level)
        _run_server(_Server(config, application, settings.drain_timeout), listening, death)


def _refuse_model(name: str) -> typer.Exit:
    """Refuse a model on the command line, where other servers take it; say where it belongs."""
    hint = f"ASSAY_MODELS={name} assay serve"
    if "/" in name:
        hint = (
            "write a card for the checkpoint (docs/how-to/serve-your-own-checkpoint.md), then: "
            "ASSAY_REPOSITORY=my-models ASSAY_MODELS=my-rm assay serve"
        )
    return exit_with(Exit.USAGE, "serve takes no model: ASSAY_MODELS names those to serve", hint)


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
    print_message(f"Assay {__version__} serves {models} on http://{host}:{port}")
    if settings.host not in LOOPBACK and not settings.api_keys:
        print_message(
            "warning: ASSAY_API_KEYS is not set: any client that reaches this address can use it"
        )


def _server_config(
    application: FastAPI, settings: Settings, access_log: bool, log_level: LogLevel
) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        log_config=_log_config(log_level),
        log_level=log_level.value,
        access_log=access_log,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout) + LAST_REPLIES_SECONDS,
    )


def _log_config(log_level: LogLevel) -> dict[str, Any]:
    own = {"handlers": ["default"], "level": log_level.upper(), "propagate": False}
    loggers: Mapping[str, Any] = LOGGING_CONFIG["loggers"]
    return {**LOGGING_CONFIG, "loggers": {**loggers, "assay": own, "assay_models": own}}


class _Server(uvicorn.Server):
    """Server that fails waiting requests at the end of the drain, while connections are open."""

    def __init__(self, config: uvicorn.Config, application: FastAPI, drain_timeout: float) -> None:
        super().__init__(config)
        self._abort = components_of(application).abort
        self._subscribers = components_of(application).subscribers
        self._drain_timeout = drain_timeout

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, after ending the event streams, which never end themselves."""
        self._subscribers.close()
        aborting = asyncio.create_task(self._abort_after_drain())
        await super().shutdown(sockets)
        aborting.cancel()

    async def _abort_after_drain(self) -> None:
        await asyncio.sleep(self._drain_timeout)
        await self._abort()


class _DeathHandler:
    """Handler of a model's death: it stops the server, as only a new process recovers a model."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._server: uvicorn.Server | None = None

    def __call__(self, reason: str) -> None:
        logger.critical("%s; stopping", reason)
        self.reason = self.reason or reason
        self._stop()

    def attach(self, server: uvicorn.Server) -> None:
        """Set the server to stop; it finishes the requests that it accepted."""
        self._server = server
        self._stop()

    def _stop(self) -> None:
        if self._server is not None and self.reason is not None:
            self._server.should_exit = True


def _run_server(server: _Server, listening: socket.socket, death: _DeathHandler) -> None:
    death.attach(server)
    interrupted = False
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # never raised where a shell makes its background jobs ignore it
        interrupted = True
    if not server.started and not interrupted:
        raise exit_with(Exit.STOPPED, "the server did not start; the log above says why")
    if death.reason is not None:
        stopped = exit_with(Exit.FAILED, death.reason, "start it again")
        _leave_hung_devices(stopped.exit_code)
        raise stopped
    _leave_hung_devices(Exit.DONE)


def _leave_hung_devices(code: int) -> None:
    """Exit at once if a forward pass never returns: a regular exit would wait for its thread."""
    devices = [thread for thread in threading.enumerate() if thread.name.startswith(DEVICE_THREAD)]
    for thread in devices:
        thread.join(1.0)
    if any(thread.is_alive() for thread in devices):
        logging.shutdown()
        os._exit(code)
