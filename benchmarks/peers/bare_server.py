"""The upper limit of this web stack: FastAPI, uvloop and httptools without any scoring.

The body model has the same fields as Assay's, and the reply has the same bytes.
"""

import argparse
from pathlib import Path
from typing import Annotated, Any

import orjson
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

BACKLOG = 4096


class Options(BaseModel):
    """The options of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    truncation: str = "error"
    raw: bool = False


class Body(BaseModel):
    """The request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    items: Annotated[list[dict[str, Any]], Field(min_length=1)]
    options: Options = Options()
    run: dict[str, Any] | None = None


def create_app(replies: dict[int, Any]) -> FastAPI:
    """Create the only route: a fixed reply by the number of items, serialised for each request."""
    app = FastAPI()

    @app.post("/v1/score")
    async def score(body: Body) -> Response:
        return Response(orjson.dumps(replies[len(body.items)]), media_type="application/json")

    return app


def main() -> None:
    """Serve the replies in a file of JSON lists."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--replies", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    replies = {len(reply["results"]): reply for reply in orjson.loads(given.replies.read_bytes())}
    uvicorn.run(
        create_app(replies),
        host="127.0.0.1",
        port=given.port,
        loop="uvloop",
        http="httptools",
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
