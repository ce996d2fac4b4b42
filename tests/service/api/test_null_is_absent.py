"""Null for an optional field means that it is absent: in bodies, nested objects and items."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import httpx2
import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel
from support.dialect_messages import roll_result
from support.scoring_routes import SCORING, Scoring

from assay.api import runs, v1
from assay.api.dialects.routers import ROUTERS
from assay.scoring.service import ScoreCall
from assay_models import items
from assay_models.base import Item, NullIsAbsent

RUN_BODIES = [
    Scoring("/v1/runs/exp/telemetry", {"step": 0, "values": {"entropy": 1.0}}),
    Scoring("/v1/runs/exp/gold", {"step": 0, "gradient_norm": 1.0}),
]
Body = Mapping[str, Any]


def classes_of(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the classes of objects in a type such as `str | list[Message] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from classes_of(part)


def with_nulls(schema: type[BaseModel], body: Body) -> Iterator[tuple[str, Body, Body]]:
    """Yield each optional field's path, the body with null for it, and the body without it."""
    for name, field in schema.model_fields.items():
        if not field.is_required():
            rest = {other: value for other, value in body.items() if other != name}
            yield name, {**rest, name: None}, rest
        for nested in classes_of(field.annotation):
            value: Any = body.get(name, {})
            objects = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, dict) for entry in objects) or not _fits(nested, objects):
                continue
            first, *others = objects
            for path, *entries in with_nulls(nested, first):
                null, without = (
                    [entry, *others] if isinstance(value, list) else entry for entry in entries
                )
                yield f"{name}.{path}", {**body, name: null}, {**body, name: without}


def _fits(schema: type[BaseModel], objects: list[Any]) -> bool:
    return bool(objects) and all(
        field.alias in objects[0] or name in objects[0]
        for name, field in schema.model_fields.items()
        if field.is_required()
    )


def body_classes() -> dict[str, list[type[BaseModel]]]:
    """Return the classes of each route's body, by the route's path."""
    routes = [route for router in (*ROUTERS, v1.router, runs.router) for route in router.routes]
    return {
        route.path_format: [
            schema
            for name, hint in get_type_hints(route.endpoint).items()
            if name != "return"
            for schema in classes_of(hint)
        ]
        for route in routes
        if isinstance(route, APIRoute) and "POST" in (route.methods or ())
    }


CLASSES = body_classes()


def path_of(scoring: Scoring) -> str:
    """Return the path of a scoring's route, with its parameters' names."""
    path = scoring.route.rstrip("?").replace("scripted", "{model}").replace("/1/", "/{version}/")
    return path.replace("runs/exp", "runs/{run}").replace("/0-0/", "/{rollout}/")


def cases() -> Iterator[tuple[Scoring, str, Body, Body]]:
    """Yield every route with each of its optional fields as null."""
    for scoring in (*SCORING, *RUN_BODIES):
        for schema in CLASSES[path_of(scoring)]:
            if _fits(schema, [scoring.body]):
                for name, null, rest in with_nulls(schema, scoring.body):
                    yield scoring, name, null, rest


VOLATILE = {"id", "created", "timing", "request_id", "reward_request_id", "start_time", "end_time"}


def stable(reply: Any) -> Any:
    """Return a reply without what differs from request to request."""
    if isinstance(reply, dict):
        return {name: stable(value) for name, value in reply.items() if name not in VOLATILE}
    return [stable(entry) for entry in reply] if isinstance(reply, list) else reply


async def test_null_for_any_optional_field_is_answered_like_its_absence(
    client: httpx2.AsyncClient, calls: list[ScoreCall]
) -> None:
    checked = 0
    for scoring, name, null, rest in cases():
        replies, asked = [], []
        for body in (rest, rest, null):  # the first fills the cache for both others
            answer = await client.post(scoring.route, json=body)
            if answer.is_success and scoring.route.endswith("submit?"):
                answer = await roll_result(client, answer)
            replies.append((answer.status_code, stable(answer.json())))
            asked.append([(call.items, call.options, call.run, call.timeout) for call in calls])
            calls.clear()
        assert replies[1] == replies[2], (scoring.route, name)
        assert asked[1] == asked[2], (scoring.route, name)
        checked += 1
    assert checked >= 250


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/v1/score", {"model": None, "items": [{"text": "a"}]}, "model"),
        ("/v1/score", {"model": "scripted", "items": None}, "items"),
        ("/rerank", {"query": None, "texts": ["a"]}, "query"),
        ("/compat/slime/scripted", {"prompt": "a", "response": None}, "response"),
        ("/v1/runs/exp/telemetry", {"step": None, "values": {"a": 1}}, "step"),
    ],
)
async def test_null_for_a_required_field_is_a_missing_field(
    client: httpx2.AsyncClient, route: str, body: Body, field: str
) -> None:
    problem = (await client.post(route, json=body)).json()
    assert problem["errors"] == [{"field": field, "problem": "Field required"}]


ITEM_CLASSES: dict[type[Item], Body] = {
    items.TextItem: {"text": "a"},
    items.CodeItem: {"prompt": [{"role": "user", "content": "a"}], "response": "b"},
    items.CodeExecItem: {"response": "a", "tests": "b", "io": [{"stdin": "1", "stdout": "2"}]},
    items.GradeAnswerItem: {"response": "a", "gold": "b", "answer_type": "short"},
    items.GroupVoteItem: {"response": "a", "answer": "a", "peers": ["a", "b"]},
    items.ToolCallMatchItem: {"predicted": [{"name": "f"}], "gold": [{"name": "f"}]},
    items.VideoQppItem: {"query": "a", "results": [{"score": 0.5}]},
    items.RetrievalQppItem: {"query": "a", "results": [{"score": 0.5}]},
    items.NliItem: {"premise": "a", "hypothesis": "b"},
}


def test_every_class_of_items_is_checked() -> None:
    named = {value for value in vars(items).values() if isinstance(value, type)}
    own = {cls for cls in named if issubclass(cls, Item)} - {Item, items.ResponseItem}
    assert own == set(ITEM_CLASSES)


@pytest.mark.parametrize("schema", ITEM_CLASSES, ids=lambda schema: schema.__name__)
def test_null_for_any_optional_field_of_an_item_is_its_absence(schema: type[Item]) -> None:
    body = ITEM_CLASSES[schema]
    optional = list(with_nulls(schema, body))
    assert len(optional) >= 4
    for name, null, rest in optional:
        if name.rpartition(".")[2] != "content":  # a message needs content or tool calls
            assert schema.model_validate(null) == schema.model_validate(rest), name


def test_every_body_and_its_objects_take_null_as_absent() -> None:
    pending = [cls for classes in CLASSES.values() for cls in classes]
    seen: set[type[BaseModel]] = set()
    while pending:
        cls = pending.pop()
        if cls not in seen:
            seen.add(cls)
            pending += [
                nested
                for field in cls.model_fields.values()
                for nested in classes_of(field.annotation)
            ]
    assert not [cls.__name__ for cls in seen if not issubclass(cls, NullIsAbsent)]


async def test_null_in_a_candidate_leaves_the_shared_field(client: httpx2.AsyncClient) -> None:
    body = {"model": "scripted", "prompt": "p"}
    candidates = [{"response": "abc", "prompt": None}]
    answer = await client.post("/v1/best-of-n", json={**body, "candidates": candidates})
    assert answer.json()["results"][0]["score"] == 3.0


async def test_an_unknown_field_that_is_null_asks_for_nothing(client: httpx2.AsyncClient) -> None:
    body = {"query": "q", "documents": ["a"], "new_field": None}
    assert (await client.post("/v2/rerank", json=body)).status_code == 200
    answer = await client.post("/v2/rerank", json={**body, "new_field": 1})
    assert answer.json()["errors"][0]["field"] == "new_field"


async def test_null_in_fields_of_the_caller_is_returned(client: httpx2.AsyncClient) -> None:
    document = {"text": "abc", "title": None}
    body = {"query": "q", "documents": [document], "return_documents": True}
    (result,) = (await client.post("/v2/rerank", json=body)).json()["results"]
    assert result["document"] == document
