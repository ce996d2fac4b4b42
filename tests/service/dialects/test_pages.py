"""Each client has a page, and the page names its route."""

import pytest
from support.dialect_clients import SPEAKERS, Speaker
from support.paths import DOCS

PAGES = DOCS / "how-to" / "trainers"


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
def test_a_page_names_the_route(speaker: Speaker) -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    named = [name for name, text in pages.items() if speaker.path in text]
    assert set(named) - {"README.md"}
    assert all(f"({name})" in pages["README.md"] for name in named if name != "README.md")
