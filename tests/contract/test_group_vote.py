"""Votes over HTTP: groups of one request, and a group that is cut over two."""

from typing import Any

import httpx2
from support.servers import listening

from assay.settings import Settings


def test_groups_of_a_request_vote_apart_and_a_cut_group_is_flagged() -> None:
    def item(group: str, answer: str) -> dict[str, Any]:
        return {"group": group, "answer": answer, "answer_type": "number"}

    with listening(Settings(models=("group-vote", "reference"), runs="off")) as url:

        def score(**options: Any) -> httpx2.Response:
            items = [item("p", "0.5"), item("q", "7"), item("p", "1/2"), item("q", "8")]
            body = {"model": "group-vote", "items": items, "options": options}
            return httpx2.post(f"{url}/v1/score", json=body, timeout=60)

        results = score().json()["results"]
        assert [result["score"] for result in results] == [1.0, 0.5, 1.0, 0.5]
        assert not any(result["flags"] for result in results)
        cut = score(group_size=4).json()["results"]
        assert [result["score"] for result in cut] == [0.5, 0.25, 0.5, 0.25]
        assert all(result["flags"] == ["partial_group"] for result in cut)
        assert score(group_size=1).status_code == 422
        other = {"model": "reference", "items": [{"text": "a"}], "options": {"group_size": 4}}
        assert httpx2.post(f"{url}/v1/score", json=other, timeout=60).status_code == 422
