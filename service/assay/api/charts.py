"""The routes that the page of run health is drawn from: a run's chart, and its news as it comes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from assay.api.errors import PROBLEMS
from assay.api.guard import JsonRoute, json_response
from assay.api.runs import ABSENT, RunName, known, not_kept
from assay.following import Follower, Followers
from assay_monitors.charts import COLUMNS, RunChart, run_chart

EVENTS = "text/event-stream"
MOST_COLUMNS = 500
# Proxies must neither keep what is told nor hold it back.
UNSTORED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {EVENTS: {"schema": {"type": "string"}}}}
}

router = APIRouter(route_class=JsonRoute, responses={**PROBLEMS, **ABSENT}, tags=["runs"])


@dataclass(frozen=True, slots=True)
class RunNews:
    """When a run was last seen, in seconds since the epoch, and the latest step that anything was
    scored for or told of.
    """

    run: str
    last_seen: float
    step: int | None


@router.get("/v1/runs/{run:path}/chart", response_model=RunChart)
async def show_chart(
    request: Request,
    run: RunName,
    model: str | None = None,
    split: str | None = None,
    columns: Annotated[int, Query(ge=1, le=MOST_COLUMNS)] = COLUMNS,
) -> Response:
    """A run as it is drawn: its steps pooled into columns, how scores spread, when rules fired."""
    return json_response(
        await known(request, run, lambda history: run_chart(history, run, model, split, columns))
    )


@router.get("/v1/runs/{run:path}/events", response_model=RunNews, responses=STREAMED)
async def follow_run(request: Request, run: RunName) -> Response:
    """A run's latest news; with `Accept: text/event-stream` also whatever comes, as events."""
    followers = request.app.state.followers
    assert isinstance(followers, Followers)
    news = await followers.latest(run)
    if news is None:
        raise not_kept(run)
    if EVENTS not in request.headers.get("accept", ""):
        return json_response(RunNews(run, *news))
    return EventStream(followers, followers.join(run, news))


class EventStream(StreamingResponse):
    """A run's news as server-sent events: `seen` with the news, comments as a sign of life, `end`
    when there will be no more.
    """

    def __init__(self, followers: Followers, follower: Follower) -> None:
        super().__init__(_events(follower), headers=UNSTORED, media_type=EVENTS)
        self._followers = followers
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until either side ends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._followers.leave(self._follower)


async def _events(follower: Follower) -> AsyncIterator[bytes]:
    async for news in follower.told():
        if news is None:
            yield b": still here\n\n"
        else:
            yield b"event: seen\ndata: %s\n\n" % orjson.dumps(RunNews(follower.run, *news))
    yield b"event: end\ndata: {}\n\n"
