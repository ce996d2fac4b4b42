"""The cache of prepared items, and the priority header."""

import re
from collections.abc import Sequence

import pytest
from support.doubles import ScriptedModel
from support.scoring_requests import post
from support.servers import Served

from assay.settings import Settings
from assay_models.base import Input, Item, Options, Prepared, Raw, Score
from assay_models.items import TextItem


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Options]]:
    """The texts and options that the scripted model prepares, recorded in order."""
    calls: list[tuple[str, Options]] = []
    prepare = ScriptedModel.prepare

    def recording_prepare(self: ScriptedModel, items: Sequence[Item], options: Options) -> Prepared:
        (item,) = items
        assert isinstance(item, TextItem)
        calls.append((item.text or "", options))
        return prepare(self, items, options)

    monkeypatch.setattr(ScriptedModel, "prepare", recording_prepare)
    return calls


class TestCaching:
    async def test_an_item_is_prepared_once_whatever_its_id_and_group(
        self, served: Served, scripted_settings: Settings, prepared: list[tuple[str, Options]]
    ) -> None:
        async with served(scripted_settings) as client:
            prepared.clear()
            first = await post(client, ["a", "bb"])
            items = [{"text": "bb", "id": "x", "group": "g"}, {"text": "ccc"}, {"text": "a"}]
            body = {"model": "scripted", "items": items}
            again = (await client.post("/v1/score", json=body)).json()
            assert [text for text, _ in prepared] == ["a", "bb", "ccc"]
            assert [r["score"] for r in first["results"]] == [1.0, 2.0]
            assert [r["score"] for r in again["results"]] == [2.0, 3.0, 1.0]
            assert [r["id"] for r in again["results"]] == ["x", None, None]
            assert [r["group"] for r in again["results"]] == ["g", None, None]
            assert [r["tokens"] for r in again["results"]] == [2, 3, 1]
            assert again["usage"]["cached"] == 2
            text = (await client.get("/metrics")).text
            assert 'assay_prepared_total{model="scripted@1",source="memory"} 2.0' in text
            assert 'assay_prepared_total{model="scripted@1",source="computed"} 3.0' in text

    async def test_other_options_are_prepared_separately(
        self, served: Served, scripted_settings: Settings, prepared: list[tuple[str, Options]]
    ) -> None:
        choices: list[dict[str, object]] = [{}, {"truncation": "left"}, {"raw": True}]
        async with served(scripted_settings) as client:
            prepared.clear()
            for options in choices * 2:
                await post(client, ["a"], options=options)
        assert [options for _, options in prepared] == [
            Options(), Options("left"), Options(raw=True),
        ]  # fmt: skip

    async def test_a_disabled_cache_prepares_every_time(
        self, served: Served, scripted_settings: Settings, prepared: list[tuple[str, Options]]
    ) -> None:
        async with served(scripted_settings.model_copy(update={"prepared_bytes": 0})) as client:
            prepared.clear()
            for _ in range(3):
                await post(client, ["a"])
        assert len(prepared) == 3

    async def test_a_failed_preparation_is_not_cached(
        self, served: Served, scripted_settings: Settings, prepared: list[tuple[str, Options]]
    ) -> None:
        async with served(scripted_settings) as client:
            prepared.clear()
            for _ in range(2):
                await post(client, ["refused", "unpreparable"])
        assert [text for text, _ in prepared] == ["refused", "unpreparable"] * 2

    @pytest.mark.parametrize("name", ["id", "group"])
    @pytest.mark.parametrize("wrong", [7, ["a"], "x" * 257])
    async def test_ids_and_groups_of_cached_items_are_validated(
        self, served: Served, scripted_settings: Settings, name: str, wrong: object
    ) -> None:
        body = {"model": "scripted", "items": [{"text": "fine"}, {"text": "a", name: wrong}]}
        async with served(scripted_settings) as client:
            fresh = (await client.post("/v1/score", json=body)).json()
            await post(client, ["fine", "a"])
            cached = (await client.post("/v1/score", json=body)).json()
        assert cached.pop("request_id") != fresh.pop("request_id")
        assert cached == fresh
        assert cached["errors"][0]["field"] == f"items.1.{name}"

    async def test_a_group_is_cached_as_a_whole(
        self, served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []

        def prepare(_: ScriptedModel, items: Sequence[TextItem], options: Options) -> Prepared:
            sizes.append(len(items))
            texts = [item.text or "" for item in items]
            return Prepared(tuple(Input(text.encode(), 1, text) for text in texts))

        def finish(
            _: ScriptedModel, prepared: Prepared, raws: Sequence[Raw], options: Options
        ) -> list[Score]:
            best = max(raw for (raw,) in raws)
            return [Score(raw - best, raw, channels={}) for (raw,) in raws]

        monkeypatch.setattr(ScriptedModel, "sees", "group")
        monkeypatch.setattr(ScriptedModel, "prepare", prepare)
        monkeypatch.setattr(ScriptedModel, "finish", finish)
        items = [{"text": "a", "group": "g"}, {"text": "long"}, {"text": "ccc", "group": "g"}]
        async with served(scripted_settings) as client:
            sizes.clear()
            for groups, expected in (
                (("g", None, "g"), [-2.0, 0.0, 0.0]),
                (("h", None, "h"), [-2.0, 0.0, 0.0]),
                (("g", "g", "g"), [-3.0, 0.0, -1.0]),
            ):
                named = [
                    {**item, "group": group} for item, group in zip(items, groups, strict=True)
                ]
                body = {"model": "scripted", "items": named}
                reply = (await client.post("/v1/score", json=body)).json()
                assert [r["score"] for r in reply["results"]] == expected
                assert [r["group"] for r in reply["results"]] == list(groups)
        assert sizes == [2, 1, 3], "the second time it was cached"


class TestPriorityHeader:
    @pytest.mark.parametrize(
        ("path", "header", "lane"),
        [
            ("/v1/score", None, "training"),
            ("/v1/score", "bulk", "bulk"),
            ("/score", "interactive", "interactive"),
            ("/v1/models/scripted/score", "bulk", "bulk"),
            ("/v1/models/scripted/score", None, "training"),
            ("/v1/best-of-n", None, "interactive"),
            ("/v1/best-of-n", "training", "training"),
        ],
    )
    async def test_the_header_selects_the_lane(
        self, served: Served, scripted_settings: Settings, path: str, header: str | None, lane: str
    ) -> None:
        named = {} if "models" in path else {"model": "scripted"}
        rest = {"candidates": ["a"]} if path.endswith("-n") else {"items": [{"text": "a"}]}
        headers = {} if header is None else {"X-Assay-Priority": header}
        async with served(scripted_settings) as client:
            answer = await client.post(path, json={**named, **rest}, headers=headers)
            assert answer.status_code == 200, answer.text
            counts = re.findall(
                r'assay_queue_seconds_count\{lane="(\w+)",.*\} (\S+)',
                (await client.get("/metrics")).text,
            )
        assert {lane for lane, count in counts if float(count)} == {lane}

    @pytest.mark.parametrize("path", ["/v1/score", "/v1/models/scripted/score"])
    @pytest.mark.parametrize("wrong", ["urgent", "Training", "bulk, training"])
    async def test_an_unknown_lane_is_rejected(
        self, served: Served, scripted_settings: Settings, path: str, wrong: str
    ) -> None:
        body = {"items": [{"text": "a"}], **({} if "models" in path else {"model": "scripted"})}
        async with served(scripted_settings) as client:
            answer = await client.post(path, json=body, headers={"X-Assay-Priority": wrong})
        assert answer.status_code == 422
        problem = answer.json()["errors"][0]
        assert problem["field"].lower() == "x-assay-priority"
        assert "'interactive', 'training' or 'bulk'" in problem["problem"]
