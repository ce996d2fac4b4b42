"""`assay serve`: serve the models of the settings on one address, from one process."""

import asyncio
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from assay import __version__
from assay.api.components import components_of
from assay.app import create_app
from assay.cli.listeners import (
    BACKLOG,
    CannotListen,
    Listeners,
    address_of,
    open_listeners,
)
from assay.cli.memory import bound_kernel_caches, releasing_free_memory
from assay.cli.process import Exit, LogLevel, exit_with, on_errors, print_message
from assay.errors import SettingsError
from assay.scoring.service import ScoringService
from assay.served_model import DEVICE_THREAD
from assay.server.connections import Connections
from assay.server.descriptors import connection_bound
from assay.server.protocol import HttpProtocol
from assay.setting_values import UNIX
from assay.settings import Settings, read_settings, variable_name

logger = logging.getLogger(__name__)

# After the drain, so that requests that it aborted still receive their reply.
LAST_REPLIES_SECONDS = 5
# Longer than a body takes whose client is still sending it.
LAST_BODIES_SECONDS = 2.0
# The prefix of the threads that read and write runs.
RUN_THREADS = "assay-"
# After a second interrupt, in all.
FORCED_SECONDS = 2.0
# The device's thread returns to Python after each kernel. At the default of 5 ms it would often
# wait for the event loop while its cores are idle.
SWITCH_SECONDS = 0.0005


def serve(
    checkpoint: Annotated[str | None, typer.Argument(hidden=True, metavar="")] = None,
    *,
    model: Annotated[str | None, typer.Option("--model", hidden=True)] = None,
    host: Annotated[str | None, typer.Option(help="The addresses; overrides ASSAY_HOST.")] = None,
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
        options = {variable_name("host"): host, variable_name("port"): port}
        given = {name: str(value) for name, value in options.items() if value is not None}
        settings = read_settings({**os.environ, **given})
        death = _DeathHandler()
        application = create_app(settings, death)
    sys.setswitchinterval(SWITCH_SECONDS)
    with _listening(settings) as listeners, releasing_free_memory():
        _announce(settings, components_of(application).service, listeners.sockets)
        connections = _connections(application, settings)
        config = _server_config(application, settings, connections, access_log, log_level)
        server = _Server(
            config, application, settings, listeners=listeners, connections=connections
        )
        _run_server(server, death)


def _refuse_model(name: str) -> typer.Exit:
    """Refuse a model on the command line, where other servers take it; say where it belongs."""
    hint = f"ASSAY_MODELS={name} assay serve"
    if "/" in name:
        hint = (
            "write a card for the checkpoint (docs/how-to/serve-your-own-checkpoint.md), then: "
            "ASSAY_REPOSITORY=my-models ASSAY_MODELS=my-rm assay serve"
        )
    return exit_with(Exit.USAGE, "serve takes no model: ASSAY_MODELS names those to serve", hint)


@contextmanager
def _listening(settings: Settings) -> Iterator[Listeners]:
    try:
        mode = int(settings.socket_mode, 8)
        with open_listeners(settings.host, settings.port, mode) as listeners:
            yield listeners
    except CannotListen as error:
        hint = "choose another with --host and --port"
        raise exit_with(Exit.STOPPED, str(error), hint) from error


def _announce(
    settings: Settings, service: ScoringService, listeners: Sequence[socket.socket]
) -> None:
    models = ", ".join(served.card.id for served in service.models())
    addresses = ", ".join(
        address_of(host, listener) + ("" if host.startswith(UNIX) else settings.root_path)
        for host, listener in zip(settings.host, listeners, strict=True)
    )
    print_message(f"Assay {__version__} serves {models} on {addresses}")
    if not settings.has_keys and not settings.is_loopback:
        print_message(
            "warning: ASSAY_API_KEYS is not set: any client that reaches this address can use it"
        )


def _connections(application: FastAPI, settings: Settings) -> Connections:
    components = components_of(application)
    return Connections(
        max_connections=connection_bound(settings.max_connections),
        io_timeout=settings.io_timeout,
        keep_alive=settings.keep_alive,
        bodies=components.bodies,
        metrics=components.metrics,
    )


def _server_config(
    application: FastAPI,
    settings: Settings,
    connections: Connections,
    access_log: bool,
    log_level: LogLevel,
) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=HttpProtocol.of(connections),
        ws="none",
        log_config=_log_config(log_level),
        log_level=log_level.value,
        access_log=access_log,
        lifespan="on",
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout) + LAST_REPLIES_SECONDS,
    )


def _log_config(log_level: LogLevel) -> dict[str, Any]:
    own = {"handlers": ["default"], "level": log_level.upper(), "propagate": False}
    loggers: Mapping[str, Any] = LOGGING_CONFIG["loggers"]
    ours = dict.fromkeys(("assay", "assay_models", "assay_monitors"), own)
    others = {"handlers": ["default"], "level": "WARNING"}
    return {**LOGGING_CONFIG, "loggers": {**loggers, **ours}, "root": others}


class _Server(uvicorn.Server):
    """Server that announces its stop, and fails waiting requests while connections are open."""

    def __init__(
        self,
        config: uvicorn.Config,
        application: FastAPI,
        settings: Settings,
        *,
        listeners: Listeners,
        connections: Connections,
    ) -> None:
        super().__init__(config)
        self.listeners = listeners
        self.components = components_of(application)
        self._application = application
        self._settings = settings
        self._connections = connections
        self._closes_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and watch the connections.

        The framework builds its routes with the document, and else with the first request, which
        would hold the event loop.
        """
        await asyncio.to_thread(self._application.openapi)
        await super().startup(sockets)
        self._connections.start()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to shut down now: a delay after the stop was requested."""
        if not await super().on_tick(counter):
            return False
        if self._closes_at is None:
            self.components.shutdown.is_announced = True
            self._closes_at = time.monotonic() + self._settings.shutdown_delay
        return self.force_exit or time.monotonic() >= self._closes_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, after ending the event streams, which never end themselves."""
        self.components.shutdown.is_announced = True
        self.components.subscribers.close()
        self.components.lifecycle.end_waits()
        self.listeners.remove_files()  # here, because a signal ends the process after `run`
        ending = asyncio.create_task(self._end_requests())
        await super().shutdown(sockets)
        ending.cancel()
        if self.force_exit:
            await self._end_at_once()

    async def _end_requests(self) -> None:
        drain = self._settings.drain_timeout
        unfinished = min(drain, LAST_BODIES_SECONDS)
        await asyncio.sleep(unfinished)
        self._connections.end_bodies()
        await asyncio.sleep(drain - unfinished)
        await self._abort()

    async def _abort(self) -> None:
        self._connections.end_bodies()
        await self.components.abort()

    async def _end_at_once(self) -> None:
        """Answer all requests and close the parts, within a few seconds."""
        self.components.shutdown.is_forced = True
        await self._abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(FORCED_SECONDS):
                if self.server_state.tasks:
                    await asyncio.wait(self.server_state.tasks)
                await self.lifespan.shutdown()


class _DeathHandler:
    """Handler of a model's death: it stops the server, as only a new process recovers a model.

    A server of which no model could be loaded is stopped as well.
    """

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


def _run_server(server: _Server, death: _DeathHandler) -> None:
    death.attach(server)
    interrupted = False
    try:
        server.run(sockets=server.listeners.sockets)
    except KeyboardInterrupt:  # never raised where a shell makes its background jobs ignore it
        interrupted = True
    if not server.started and not interrupted:
        raise exit_with(Exit.STOPPED, "the server did not start; the log above says why")
    if death.reason is not None:
        was_ready = any(served.failure is None for served in server.components.service.models())
        code = Exit.FAILED if was_ready else Exit.STOPPED
        stopped = exit_with(code, death.reason, "mend the reason and start it again")
        _leave_hung_threads(stopped.exit_code)
        raise stopped
    _leave_hung_threads(Exit.DONE)


def _leave_hung_threads(code: int) -> None:
    """Exit at once if a forward pass, or a read of a database, never returns.

    A regular exit would wait for its thread.
    """
    names = (DEVICE_THREAD, RUN_THREADS)
    threads = [
        thread
        for thread in threading.enumerate()
        if not thread.daemon and thread.name.startswith(names)
    ]
    for thread in threads:
        thread.join(1.0)
    if any(thread.is_alive() for thread in threads):
        logging.shutdown()
        os._exit(code)
