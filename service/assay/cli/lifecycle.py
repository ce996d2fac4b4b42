"""`assay models load`, `promote`, `unload`: change the models of a running server."""

import os
from typing import Annotated, Any

import httpx2
import typer

from assay.cli.process import Exit, exit_with

DEFAULT_URL = "http://127.0.0.1:8000"
REPLY_SECONDS = 30.0
"""Seconds for the reply itself, beyond those that the server is asked to wait."""

Model = Annotated[str, typer.Argument(help="The model, as name@version.")]
Url = Annotated[str | None, typer.Option(help=f"The server. Default: ASSAY_URL, or {DEFAULT_URL}.")]
Wait = Annotated[
    float, typer.Option(min=0, max=300, help="Seconds to wait until it is done; 0: do not wait.")
]


def load(
    model: Annotated[str, typer.Argument(help="The model, as name or name@version.")],
    *,
    shadow_of: Annotated[
        str | None, typer.Option(help="A served model whose items it scores too.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Make it the default version once it is ready.")
    ] = False,
    wait: Wait = 300.0,
    url: Url = None,
) -> None:
    """Load a model of the repository on a running server. The key is read from ASSAY_API_KEY.

    Exit code 0: it is ready, or loads with --wait 0; 1: it could not be loaded; 2: refused; 3: no
    server, or it is still loading.
    """
    body = {"model": model, "shadow_of": shadow_of, "default": default}
    reply = _ask("POST", "/v1/models", url=url, wait=wait, body=body)
    _conclude(reply, done=("ready",) if wait else ("ready", "loading"))


def promote(model: Model, *, url: Url = None) -> None:
    """Make a version the default of its name on a running server. It is no shadow any more."""
    _conclude(_ask("POST", f"/v1/models/{model}/promote", url=url), done=("ready",))


def unload(model: Model, *, wait: Wait = 300.0, url: Url = None) -> None:
    """Unload a model of a running server.

    The server finishes what it admitted.

    Exit code 0: it is unloaded, or is being so with --wait 0; 2: refused; 3: no server, or it is
    not done yet.
    """
    reply = _ask("DELETE", f"/v1/models/{model}", url=url, wait=wait)
    _conclude(reply, done=("unloaded",) if wait else ("unloaded", "unloading"))


def _ask(
    method: str,
    path: str,
    *,
    url: str | None,
    wait: float = 0.0,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the model's state as the server replies; exit if it refuses or cannot be reached."""
    address = (url or os.environ.get("ASSAY_URL") or DEFAULT_URL).rstrip("/")
    key = os.environ.get("ASSAY_API_KEY")
    try:
        response = httpx2.request(
            method,
            address + path,
            params={"wait": wait} if wait else None,
            json=body,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            timeout=wait + REPLY_SECONDS,
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = f"no reply from {address}: {type(error).__name__}"
        raise exit_with(Exit.STOPPED, reason, "name the server with --url") from error
    try:
        reply = response.json()
    except ValueError:
        reply = {"detail": f"{address} is no Assay server: status {response.status_code}"}
    if response.is_error or "state" not in reply:
        raise exit_with(Exit.USAGE, reply.get("detail", "no reason given"), reply.get("hint"))
    return dict(reply)


def _conclude(reply: dict[str, Any], *, done: tuple[str, ...]) -> None:
    """Print the model's state; exit with an error unless it is one of those that were wanted."""
    state, failure = reply["state"], reply["failure"]
    if state == "failed":
        raise exit_with(Exit.FAILED, f"{reply['id']} could not be loaded: {failure}")
    roles = [f"shadow of {reply['shadow_of']}"] if reply["shadow_of"] else []
    roles += ["default"] if reply["default"] else []
    typer.echo(", ".join([f"{reply['id']}: {state}", *roles]))
    if state not in done:
        raise exit_with(Exit.STOPPED, f"{reply['id']} is {state}", "ask again later")
