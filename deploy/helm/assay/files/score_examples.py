"""Score the example on each model's card through the Service, and compare with the card."""

import json
import os
import sys
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen


def main() -> int:
    """Return the number of models whose example gets another score than the card states."""
    models = request("/v1/models")["models"]
    return sum(not passes(request("/v1/models/" + quote(model["id"]))) for model in models)


def passes(card: dict[str, Any]) -> bool:
    """Return whether the example of a card gets its score; print both."""
    example = card["example"]
    if example is None:
        print(card["id"], "has no example")
        return True
    reply = request("/v1/score", {"model": card["id"], "items": [example["item"]]})
    score, error = (reply["results"][0][name] for name in ("score", "error"))
    print(card["id"], "score:", score, "card:", example["score"], error or "")
    return score is not None and abs(score - example["score"]) <= example["tolerance"]


def request(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the reply to a GET, or to a POST of a body."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(os.environ["URL"] + path, data, headers)) as reply:
        return dict(json.load(reply))


if __name__ == "__main__":
    sys.exit(main())
