"""The pages at /docs and /redoc in a browser, which holds them to their content policy."""

import pytest
from support.servers import listening

from assay.settings import Settings

from .browser import needs_browser, visiting

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.mark.parametrize(("path", "drawn"), [("/docs", ".opblock"), ("/redoc", "redoc h1")])
async def test_a_page_of_the_api_is_drawn_under_its_policy(path: str, drawn: str) -> None:
    with listening(Settings(models=("reference",), runs="off")) as address:
        async with visiting(address) as visit:
            await visit.page.goto(address + path)
            await visit.page.locator(drawn).first.wait_for()
            assert not [error for error in visit.errors if "script" in error.lower()]
            visit.errors.clear()  # Redoc warns of samples, and of its logo, which is elsewhere
            visit.blocked.clear()
