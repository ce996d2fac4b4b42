"""Each client has a page, and the page names its route."""

import pytest
from support.dialect_clients import DIALECT_CLIENTS, DialectClient
from support.paths import DOCS

PAGES = DOCS / "how-to" / "trainers"


@pytest.mark.parametrize("dialect", DIALECT_CLIENTS, ids=lambda dialect: dialect.name)
def test_a_page_names_the_route(dialect: DialectClient) -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    named = [name for name, text in pages.items() if dialect.path in text]
    assert set(named) - {"README.md"}
    assert all(f"({name})" in pages["README.md"] for name in named if name != "README.md")
