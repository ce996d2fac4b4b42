"""A real Chromium, and what a page did in it: requests, complaints, and nothing beyond its host."""

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

FETCHED = ROOT / ".venv" / "browser"
# A busy machine may take its time; what comes is awaited, not slept for.
PATIENCE_MS = 60_000
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")


def executable() -> str | None:
    """The browser that `CHROMIUM` names, that `make test` has fetched, or that the system has."""
    known = [os.environ.get("CHROMIUM"), str(FETCHED / "chromium"), *map(shutil.which, NAMES)]
    return next((one for one in known if one and Path(one).is_file()), None)


needs_browser = pytest.mark.skipif(
    executable() is None, reason="no Chromium: `make .venv/browser` fetches one from npm's registry"
)


def environment() -> dict[str, str | float | bool]:
    """Fonts, and libraries where the system lacks them, come with the browser that was fetched."""
    more: dict[str, str | float | bool] = {}
    if (FETCHED / "fonts.conf").exists():
        more["FONTCONFIG_FILE"] = str(FETCHED / "fonts.conf")
    if ctypes.util.find_library("nss3") is None:
        more["LD_LIBRARY_PATH"] = str(FETCHED / "lib")
    return {**os.environ, **more}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser of our own, gone after the block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable(),
            env=environment(),
            # It opens nothing but the page; containers of CI give it no room for a sandbox.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            await browser.close()


class Visit:
    """One tab at one address. Requests to any other host are stopped and remembered."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.page: Page
        self.asked: list[Request] = []
        self.strayed: list[str] = []
        self.complaints: list[str] = []

    async def watch(self, page: Page) -> None:
        """Look at all that the page does from now on."""
        self.page = page
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("request", lambda request: self.asked.append(request))
        page.on("console", self._complained)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        await page.route("**/*", self._pass)

    async def go(self, place: str = "") -> None:
        """Open a room of the page, and wait until it is drawn."""
        await self.page.goto(f"{self.address}/#/{place}")
        await self.page.locator("main h1").wait_for()

    def paths(self) -> list[str]:
        """What was asked of the server, in order."""
        return [one.url.removeprefix(self.address) for one in self.asked]

    def _complained(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def _pass(self, route: Route) -> None:
        if route.request.url.startswith(f"{self.address}/"):
            await route.continue_()
        else:
            self.strayed.append(route.request.url)
            await route.abort()


@asynccontextmanager
async def visiting(address: str, **choices: Any) -> AsyncIterator[Visit]:
    """A tab at an address; when it is left, nothing may have strayed and nothing complained."""
    async with chromium() as browser:
        context = await browser.new_context(locale="en-US", **choices)
        visit = Visit(address)
        await visit.watch(await context.new_page())
        yield visit
        assert visit.strayed == []
        assert visit.complaints == []
