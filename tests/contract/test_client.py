"""The client against the real service: types, errors and scores."""

import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from support.doubles import SCRIPTED_CARD
from support.servers import listening

from assay.settings import Settings
from assay.types import (
    BestOfNReply,
    GroupSummary,
    ItemResult,
    RankedCandidate,
    ScoreReply,
    Timing,
    Usage,
)
from assay_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    ItemFailedError,
    NotFoundError,
    PermissionDeniedError,
    RequestTooLargeError,
    UnprocessableEntityError,
    types,
)
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family
from assay_monitors import reports
from assay_monitors.advice import Advice
from assay_monitors.changes import Changes
from assay_monitors.health import ChannelHealth
from assay_monitors.store import RunStore

KEY = "a-key-0123456789abc"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "card.toml").write_text(SCRIPTED_CARD)
    FAMILIES["scripted"] = Family(
        "support.doubles", "ScriptedModel", item=TextItem, candidate="text", probe={"text": "probe"}
    )
    keys = Settings(api_keys=(KEY,)).api_keys
    settings = Settings(
        models=("scripted", "reference"), repository=(folder,), api_keys=keys, max_items=8
    )
    with listening(settings) as address:
        yield address
    del FAMILIES["scripted"]


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, api_key=KEY) as client:
        yield client


@pytest.mark.parametrize(
    ("server_type", "client_type"),
    [
        (ScoreReply, types.ScoreReply),
        (ItemResult, types.Result),
        (GroupSummary, types.Group),
        (Usage, types.Usage),
        (Timing, types.Timing),
        (BestOfNReply, types.BestOfN),
        (RankedCandidate, types.RankedCandidate),
        (reports.RunHealth, types.RunHealth),
        (reports.StreamHealth, types.StreamHealth),
        (reports.RuleState, types.RuleState),
        (reports.RuleProgress, types.RuleProgress),
        (reports.GoldHealth, types.GoldHealth),
        (reports.GoldMeasure, types.GoldMeasure),
        (reports.Interval, types.Interval),
        (ChannelHealth, types.ChannelHealth),
        (Advice, types.Advice),
    ],
)
def test_the_clients_types_have_every_field(server_type: type, client_type: type) -> None:
    assert {field.name for field in fields(server_type)} <= {
        field.name for field in fields(client_type)
    }


def test_scores_are_typed_and_in_order(client: Client) -> None:
    reply = client.score("scripted", [{"text": "ccc", "group": "g"}, {"text": "a", "group": "g"}])
    assert reply.scores == [3.0, 1.0]
    assert reply.model == "scripted@1"
    assert reply.groups is not None
    assert reply.groups[0].ranks == (1, 2)
    assert client.score_one("scripted", {"text": "four"}) == 4.0


def test_a_failed_item_raises_or_is_none(client: Client) -> None:
    items = [{"text": "good"}, {"text": "poison"}]
    with pytest.raises(ItemFailedError, match="inference_failed"):
        client.score("scripted", items)
    assert client.score("scripted", items, on_error="none").scores == [4.0, None]


def test_long_lists_are_split_below_the_servers_limit(url: str) -> None:
    items = [{"text": "x" * (1 + n)} for n in range(20)]
    with Client(url, api_key=KEY, max_items_per_request=8) as client:
        assert client.score("scripted", items).scores == [float(1 + n) for n in range(20)]
    with Client(url, api_key=KEY) as client, pytest.raises(RequestTooLargeError):
        client.score("scripted", items)


def test_candidates_are_ranked(client: Client) -> None:
    ranked = client.best_of_n("reference", ["one", "one two"], prompt="one two three")
    assert ranked.best == 1
    assert [place.index for place in ranked.ranking] == [1, 0]


def test_models_liveness_and_readiness_are_read(client: Client) -> None:
    assert {model.id for model in client.models()} == {"reference@1", "scripted@1"}
    assert client.model("scripted").state == "ready"
    assert client.is_live()
    assert client.is_ready()


def test_the_health_of_a_run_is_typed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = threading.Event(), RunStore.write

    def signalling_write(store: RunStore, changes: Changes) -> None:
        write(store, changes)
        written.set()

    monkeypatch.setattr(RunStore, "write", signalling_write)
    run = {"id": "a/b c?", "step": 7}
    client.score("scripted", [{"text": "abc"}, {"text": "a"}], run=run)
    assert written.wait(30)
    health = client.run_health("a/b c?")
    assert (health.run, health.status, health.firing) == ("a/b c?", "waiting", ())
    (stream,) = health.streams
    assert (stream.model, stream.split, stream.step) == ("scripted@1", "train", 7)
    assert stream.channels["score"].mean == 2.0
    assert (stream.rules[0].rule, stream.rules[0].state) == ("constant_score", "quiet")
    assert stream.rules[0].thresholds["other"] == 0.05
    with pytest.raises(NotFoundError) as missing:
        client.run_health("unknown")
    assert missing.value.code == "run_not_found"


def test_refusals_become_typed_errors(client: Client, url: str) -> None:
    with pytest.raises(NotFoundError) as missing:
        client.score("nope", [{"text": "a"}])
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(UnprocessableEntityError, match="txt"):
        client.score("scripted", [{"txt": "a"}])
    with Client(url) as anonymous, pytest.raises(AuthenticationError):
        anonymous.models()
    with Client(url, api_key="wrong") as unauthorized, pytest.raises(PermissionDeniedError):
        unauthorized.models()


async def test_the_asynchronous_client_returns_the_same(url: str) -> None:
    async with AsyncClient(url, api_key=KEY) as client:
        assert (await client.score("scripted", [{"text": "ab"}])).scores == [2.0]
        ranked = await client.best_of_n("reference", ["one", "two"], prompt="two")
        assert ranked.best == 1


def test_the_tested_package_is_the_repositorys() -> None:
    import assay_client

    assert Path(assay_client.__file__).parents[1].name == "clients"
