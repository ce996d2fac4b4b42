"""Query rewriting: reading a rewrite, the drift penalty, and preference pairs."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.servers import listening

from assay.settings import Settings
from assay_client import Client, ProtocolError, Result
from assay_client.rewards.query_rewriting import (
    DriftPenalty,
    Pair,
    Pairs,
    Query,
    clean,
    preference_pairs,
)

SCORES = {"poor": 0.1, "fair": 0.4, "good": 0.45, "best": 0.9, "kite": 0.5}
NO_PENALTY = DriftPenalty(similarity=0, length=0, novelty=0)


NO_DRIFT = {"similarity": 1.0, "length_change": 0.0, "novelty": 0.0}


def result_of(
    status: Any, score: float | None, channels: Any, flags: tuple[str, ...] = ()
) -> Result:
    """Return a result with the fields that rewards are made of."""
    return Result(
        index=0,
        id=None,
        group=None,
        status=status,
        score=score,
        raw=None,
        channels=channels,
        flags=flags,
        tokens=3,
        source=None,
        details={},
        error=None,
    )


class TestClean:
    @pytest.mark.parametrize(
        ("completion", "expected"),
        [
            ("a dog runs", "a dog runs"),
            ("Sure!\n\n  a dog   runs \n \n", "a dog runs"),
            ("Rewritten query: a dog runs", "a dog runs"),
            ("QUERY:a dog runs", "a dog runs"),
            ("**Final answer:** a dog runs", "a dog runs"),
            ("**Query**: a dog runs", "a dog runs"),
            ("1. a dog runs", "a dog runs"),
            ("- a dog runs", "a dog runs"),
            ('Answer: "a dog runs"', "a dog runs"),
            ('"Query: a dog runs"', "a dog runs"),
            ("\u201ca dog runs\u201d", "a dog runs"),
            ("`a dog runs`", "a dog runs"),
            ("**a dog runs**", "a dog runs"),
            ('"a dog runs', "a dog runs"),
            ('"a" and "b"', '"a" and "b"'),
            ("a man says 'hi'", "a man says 'hi'"),
            ("3 dogs run", "3 dogs run"),
            ("a query: what is it", "a query: what is it"),
            ("time 10:30: a train", "time 10:30: a train"),
            ("Query:", ""),
            ('""', ""),
            (" \n\t\n", ""),
            ("", ""),
        ],
    )
    def test_clean_returns_the_rewrite(self, completion: str, expected: str) -> None:
        assert clean(completion) == expected

    @given(st.text(alphabet="a1 \n\t.-*:\"'`\u201c\u201dQuery", max_size=40))
    def test_clean_is_idempotent(self, completion: str) -> None:
        once = clean(completion)
        assert clean(once) == once
        assert once == " ".join(once.split())

    @given(st.lists(st.text(max_size=20), max_size=4), st.text(max_size=30))
    def test_only_the_last_line_counts(self, lines: list[str], last: str) -> None:
        if clean(last):
            assert clean("\n".join([*lines, last])) == clean(last)


channels = st.fixed_dictionaries(
    {
        "similarity": st.floats(-1, 1),
        "length_change": st.floats(-5, 5),
        "novelty": st.floats(0, 1),
    }
)


class TestDriftPenalty:
    @pytest.mark.parametrize(
        ("similarity", "change", "novelty", "penalty"),
        [
            (1.0, 0.0, 0.0, 0.0),
            (0.6, 0.7, 0.5, 0.0),
            (0.5, 0.0, 0.0, 0.1),
            (-0.4, 0.0, 0.0, 1.0),
            (1.0, 1.7, 0.0, 0.1),
            (1.0, -1.7, 0.0, 0.1),
            (1.0, 0.0, 1.0, 0.1),
            (0.5, 1.7, 1.0, 0.3),
        ],
    )
    def test_the_default_penalty_starts_at_its_thresholds(
        self, similarity: float, change: float, novelty: float, penalty: float
    ) -> None:
        drifted = {"similarity": similarity, "length_change": change, "novelty": novelty}
        assert DriftPenalty().compute(drifted) == pytest.approx(penalty)

    @given(channels, st.floats(0, 4), st.floats(0, 4))
    def test_a_greater_weight_never_lowers_the_penalty(
        self, channels: Any, first: float, second: float
    ) -> None:
        low, high = (
            DriftPenalty(similarity=weight, length=weight, novelty=weight).compute(channels)
            for weight in sorted((first, second))
        )
        assert 0 <= low <= high

    def test_without_weights_no_channel_is_required(self) -> None:
        assert NO_PENALTY.compute({}) == 0

    @pytest.mark.parametrize("name", ["similarity", "length_change", "novelty"])
    @pytest.mark.parametrize("is_missing", [False, True])
    def test_a_missing_channel_raises_a_protocol_error(self, name: str, is_missing: bool) -> None:
        channels = {"similarity": 0.9, "length_change": 0.1, "novelty": 0.1, name: None}
        if is_missing:
            del channels[name]
        with pytest.raises(ProtocolError, match=name):
            DriftPenalty().compute(channels)

    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
    @pytest.mark.parametrize("name", ["similarity", "novelty", "free_length"])
    def test_negative_and_infinite_weights_are_refused(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=name):
            DriftPenalty(**{name: value})

    @pytest.mark.parametrize(
        ("score", "flags", "reward"), [(None, (), None), (-1.0, ("substituted",), -1.0)]
    )
    def test_a_result_without_a_score_of_its_own_has_no_penalty(
        self, score: float | None, flags: tuple[str, ...], reward: float | None
    ) -> None:
        channels = {"similarity": None, "length_change": None, "novelty": None}
        result = result_of("error", score, channels, flags)
        assert DriftPenalty().reward(result) == reward


class TestPairs:
    """Preference pairs, with `SCORES` of a rewrite's last word as the server's score."""

    @pytest.fixture
    def client(self, server: Any, canned: Any) -> Iterator[Client]:
        def answer(received: Any) -> Any:
            reply = canned.score_reply(
                [
                    {"value": SCORES.get(item["query"].split()[-1])}
                    for item in received.body["items"]
                ],
                received.body["model"],
            )
            for result, item in zip(reply["results"], received.body["items"], strict=True):
                similarity = 0.0 if "far" in item["query"] else 1.0
                result["channels"] = NO_DRIFT | {"similarity": similarity}
            return canned.json(reply)

        server.always = answer
        with Client(server.url, max_retries=0) as client:
            yield client

    def pairs(self, client: Client, *queries: Query, margin: float = 0.1, **more: Any) -> Pairs:
        return preference_pairs(client, "video-qpp@2", queries, min_margin=margin, **more)

    def test_the_higher_score_is_chosen(self, client: Client, server: Any) -> None:
        query = Query("a kite", ["fair", "poor", "Query: best"])
        result = self.pairs(client, query, collection="vatex")
        (pair,) = result.pairs
        assert pair == Pair("a kite", "best", "poor", pair.margin)
        assert pair.margin == pytest.approx(0.8)
        assert server.received[0].body["items"][2] == {
            "query": "best",
            "original": "a kite",
            "collection": "vatex",
        }

    @given(st.permutations(["poor", "fair", "good", "best"]))
    def test_the_order_of_the_candidates_changes_nothing(self, order: list[str]) -> None:
        class FakeClient:
            def score(self, model: str, items: Any, **_: Any) -> Any:
                results = [result_of("ok", SCORES[item["query"]], NO_DRIFT) for item in items]
                return type("Reply", (), {"results": results})

        client: Any = FakeClient()
        (pair,) = self.pairs(client, Query("a kite", order)).pairs
        assert (pair.chosen, pair.rejected) == ("best", "poor")

    @pytest.mark.parametrize(
        ("candidates", "margin", "reason"),
        [
            (["fair", "good"], 0.1, "small_margin"),
            (["a good", "one good"], 0.0, "small_margin"),
            (["good"], 0.0, "too_few"),
            (["good", "Query: good", '"good"', ""], 0.0, "too_few"),
            (["good", "unheard-of"], 0.0, "too_few"),
            ([], 0.0, "too_few"),
        ],
    )
    def test_a_query_without_a_useful_pair_is_left_out(
        self, client: Client, candidates: list[str], margin: float, reason: str
    ) -> None:
        result = self.pairs(client, Query("a kite", candidates), margin=margin)
        assert result.pairs == ()
        assert result.left_out == {reason: 1}

    def test_a_pair_at_the_minimum_margin_is_kept(self, client: Client) -> None:
        margin = SCORES["good"] - SCORES["fair"]
        (pair,) = self.pairs(client, Query("a kite", ["fair", "good"]), margin=margin).pairs
        assert pair.margin == margin

    @pytest.mark.parametrize(
        ("candidates", "chosen", "rejected"),
        [(["poor", "fair"], "a kite", "poor"), (["best", "one best"], "best", "a kite")],
    )
    def test_the_original_can_be_chosen_or_rejected(
        self, client: Client, candidates: list[str], chosen: str, rejected: str
    ) -> None:
        query = Query(" a  kite ", candidates, prompt="Rewrite it.")
        (pair,) = self.pairs(client, query, with_original=True).pairs
        assert (pair.prompt, pair.chosen, pair.rejected) == ("Rewrite it.", chosen, rejected)

    def test_the_drift_penalty_affects_the_choice(self, client: Client) -> None:
        query = Query("a kite", ["far best", "fair"])
        (with_penalty,) = self.pairs(client, query, margin=0.05).pairs
        (without,) = self.pairs(client, query, drift_penalty=NO_PENALTY).pairs
        assert (with_penalty.chosen, without.chosen) == ("fair", "far best")

    def test_failed_candidates_are_counted_and_the_others_paired(self, client: Client) -> None:
        queries = [Query("a kite", ["good", "unheard-of", "best"]), Query("b", ["poor", "best"])]
        result = self.pairs(client, *queries)
        assert [pair.margin for pair in result.pairs] == pytest.approx([0.45, 0.8])
        assert result.failed == {"input_too_long": 1}

    def test_rows_have_texts_or_messages_like_the_prompt(self) -> None:
        messages = [{"role": "user", "content": "Rewrite: a kite"}]
        assert Pair("a kite", "b", "c", 0.5).row() == {
            "prompt": "a kite",
            "chosen": "b",
            "rejected": "c",
            "margin": 0.5,
        }
        row = Pair(messages, "b", "c", 0.5).row()
        assert row["prompt"] == messages
        assert row["chosen"] == [{"role": "assistant", "content": "b"}]

    @pytest.mark.parametrize("margin", [-0.1, math.nan])
    def test_an_invalid_margin_is_refused(self, client: Client, margin: float) -> None:
        with pytest.raises(ValueError, match="min_margin"):
            self.pairs(client, Query("a", ["b"]), margin=margin)

    def test_without_queries_no_request_is_sent(self, client: Client, server: Any) -> None:
        assert self.pairs(client) == Pairs((), {}, {})
        assert server.received == []


@pytest.mark.weights
def test_the_better_of_a_known_pair_is_chosen() -> None:
    """Check with the model itself that a higher score means better retrieval, not worse."""
    original = "a man cooks"
    detailed, vague = "a man in a white apron cooks pasta in a kitchen", "a person does something"
    with listening(Settings(models=("video-qpp@2",))) as url, Client(url) as client:
        for candidates in ([detailed, vague], [vague, detailed]):
            result = preference_pairs(
                client,
                "video-qpp@2",
                [Query(original, candidates)],
                min_margin=0.05,
                collection="msrvtt",
            )
            (pair,) = result.pairs
            assert (pair.chosen, pair.rejected) == (detailed, vague)
            assert pair.margin > 0


def test_a_single_text_or_query_is_not_taken_for_a_list() -> None:
    with pytest.raises(ValueError, match="a list of rewrites, not a single text"):
        Query("a man cooks", "a chef")
    one_query: Any = Query("a", ["b"])
    with Client("http://127.0.0.1:9") as client, pytest.raises(ValueError, match="must be a list"):
        preference_pairs(client, "video-qpp", one_query, min_margin=0)
