"""Models that requests name and that are not served, or have no card that can be read."""

import httpx2
import pytest

from .conftest import AddCard
from .test_routes import SECOND, score


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("scritped", "did you mean scripted? served: scripted@1"),
        ("Scripted@1", "did you mean scripted@1? served: scripted@1"),
        ("gated", "served: scripted@1"),
    ],
)
async def test_unknown_model_is_answered_with_the_nearest_name_that_is_served(
    client: httpx2.AsyncClient, name: str, hint: str
) -> None:
    reply = await score(client, name)
    assert (reply["code"], reply["hint"]) == ("model_not_found", hint)


@pytest.mark.parametrize("text", ["name = ", "x = " + "[" * 100_000])
async def test_card_that_cannot_be_read_is_refused_by_name_and_stops_no_other_load(
    client: httpx2.AsyncClient, add_card: AddCard, text: str
) -> None:
    (add_card("broken", 1) / "card.toml").write_text(text)
    reply = (await client.post("/v1/models", json={"model": "broken@1"})).json()
    assert (reply["status"], reply["code"]) == (422, "invalid_card")
    assert "broken/1/card.toml" in reply["detail"]
    assert (await client.post("/v1/models?wait=30", json=SECOND)).json()["state"] == "ready"
