"""Rewrites: how a completion is read, what drift costs, and which of two is chosen."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.servers import listening

from assay.settings import Settings
from assay_client import Client, ProtocolError, Result
from assay_client.rewards.query_rewriting import Guards, Pair, Pairs, Query, clean, preference_pairs

SCORES = {"poor": 0.1, "fair": 0.4, "good": 0.45, "best": 0.9, "kite": 0.5}
NO_GUARDS = Guards(similarity=0, length=0, novelty=0)


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
    def test_what_is_left_of_a_completion(self, completion: str, expected: str) -> None:
        assert clean(completion) == expected

    @given(st.text(alphabet="a1 \n\t.-*:\"'`\u201c\u201dQuery", max_size=40))
    def test_to_clean_twice_is_to_clean_once(self, completion: str) -> None:
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


class TestGuards:
    @pytest.mark.parametrize(
        ("near", "longer", "new", "penalty"),
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
    def test_the_defaults(self, near: float, longer: float, new: float, penalty: float) -> None:
        found = Guards().penalty({"similarity": near, "length_change": longer, "novelty": new})
        assert found == pytest.approx(penalty)

    @given(channels, st.floats(0, 4), st.floats(0, 4))
    def test_more_weight_never_takes_less(self, told: Any, less: float, more: float) -> None:
        low, high = sorted((less, more))
        assert 0 <= Guards(low, low, low).penalty(told) <= Guards(high, high, high).penalty(told)

    def test_without_weights_no_channel_is_needed(self) -> None:
        assert NO_GUARDS.penalty({}) == 0

    @pytest.mark.parametrize("name", ["similarity", "length_change", "novelty"])
    @pytest.mark.parametrize("lacking", [False, True])
    def test_a_guard_without_its_channel_is_no_guard(self, name: str, lacking: bool) -> None:
        told = {"similarity": 0.9, "length_change": 0.1, "novelty": 0.1, name: None}
        if lacking:
            del told[name]
        with pytest.raises(ProtocolError, match=name):
            Guards().penalty(told)

    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
    @pytest.mark.parametrize("name", ["similarity", "novelty", "free_length"])
    def test_weights_that_cannot_be_meant(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=name):
            Guards(**{name: value})

    @pytest.mark.parametrize(
        ("score", "flags", "reward"), [(None, (), None), (-1.0, ("substituted",), -1.0)]
    )
    def test_what_has_no_score_of_its_own_is_not_weighed(
        self, score: float | None, flags: tuple[str, ...], reward: float | None
    ) -> None:
        told = {"similarity": None, "length_change": None, "novelty": None}
        result = Result(0, None, None, "error", score, None, told, flags, 3, None, {}, None)
        assert Guards().reward(result) == reward


class TestPairs:
    """The server's score of a rewrite is what `SCORES` says of its last word."""

    @pytest.fixture
    def client(self, server: Any, say: Any) -> Iterator[Client]:
        def answer(seen: Any) -> Any:
            reply = say.score_reply(
                [{"value": SCORES.get(item["query"].split()[-1])} for item in seen.body["items"]]
            )
            for result, item in zip(reply["results"], seen.body["items"], strict=True):
                near = 0.0 if "far" in item["query"] else 1.0
                result["channels"] = {"similarity": near, "length_change": 0.0, "novelty": 0.0}
            return say.json(reply)

        server.always = answer
        with Client(server.url, max_retries=0) as client:
            yield client

    def found(self, client: Client, *queries: Query, margin: float = 0.1, **more: Any) -> Pairs:
        return preference_pairs(client, "video-qpp@2", queries, least_margin=margin, **more)

    def test_the_higher_score_is_chosen(self, client: Client, server: Any) -> None:
        query = Query("a kite", ["fair", "poor", "Query: best"])
        found = self.found(client, query, collection="vatex")
        assert found.pairs == (Pair("a kite", "best", "poor", pytest.approx(0.8)),)
        assert server.seen[0].body["items"][2] == {
            "query": "best",
            "original": "a kite",
            "collection": "vatex",
        }

    @given(st.permutations(["poor", "fair", "good", "best"]))
    def test_the_order_of_the_candidates_changes_nothing(self, order: list[str]) -> None:
        class Asked:
            def score(self, model: str, items: Any, **_: Any) -> Any:
                told = {"similarity": 1.0, "length_change": 0.0, "novelty": 0.0}
                results = [
                    Result(0, None, None, "ok", SCORES[one["query"]], 0, told, (), 1, "", {}, None)
                    for one in items
                ]
                return type("Reply", (), {"results": results})

        asked: Any = Asked()
        (pair,) = self.found(asked, Query("a kite", order)).pairs
        assert (pair.chosen, pair.rejected) == ("best", "poor")

    @pytest.mark.parametrize(
        ("candidates", "margin", "why"),
        [
            (["fair", "good"], 0.1, "small_margin"),
            (["a good", "one good"], 0.0, "small_margin"),
            (["good"], 0.0, "too_few"),
            (["good", "Query: good", '"good"', ""], 0.0, "too_few"),
            (["good", "unheard-of"], 0.0, "too_few"),
            ([], 0.0, "too_few"),
        ],
    )
    def test_what_teaches_nothing_is_left_out(
        self, client: Client, candidates: list[str], margin: float, why: str
    ) -> None:
        found = self.found(client, Query("a kite", candidates), margin=margin)
        assert found.pairs == ()
        assert found.left_out == {why: 1}

    def test_a_margin_that_is_reached_is_enough(self, client: Client) -> None:
        margin = SCORES["good"] - SCORES["fair"]
        (pair,) = self.found(client, Query("a kite", ["fair", "good"]), margin=margin).pairs
        assert pair.margin == margin

    @pytest.mark.parametrize(
        ("candidates", "chosen", "rejected"),
        [(["poor", "fair"], "a kite", "poor"), (["best", "one best"], "best", "a kite")],
    )
    def test_the_original_may_win_and_lose(
        self, client: Client, candidates: list[str], chosen: str, rejected: str
    ) -> None:
        query = Query(" a  kite ", candidates, prompt="Rewrite it.")
        (pair,) = self.found(client, query, with_original=True).pairs
        assert (pair.prompt, pair.chosen, pair.rejected) == ("Rewrite it.", chosen, rejected)

    def test_guards_decide_with_the_score(self, client: Client) -> None:
        query = Query("a kite", ["far best", "fair"])
        (guarded,) = self.found(client, query, margin=0.05).pairs
        (unguarded,) = self.found(client, query, guards=NO_GUARDS).pairs
        assert (guarded.chosen, unguarded.chosen) == ("fair", "far best")

    def test_candidates_without_a_score_are_counted_and_the_others_paired(
        self, client: Client
    ) -> None:
        queries = [Query("a kite", ["good", "unheard-of", "best"]), Query("b", ["poor", "best"])]
        found = self.found(client, *queries)
        assert [pair.margin for pair in found.pairs] == pytest.approx([0.45, 0.8])
        assert found.failed == {"input_too_long": 1}

    def test_rows_are_texts_or_messages_as_the_prompt_is(self) -> None:
        told = [{"role": "user", "content": "Rewrite: a kite"}]
        assert Pair("a kite", "b", "c", 0.5).row() == {
            "prompt": "a kite",
            "chosen": "b",
            "rejected": "c",
            "margin": 0.5,
        }
        row = Pair(told, "b", "c", 0.5).row()
        assert (row["prompt"], row["chosen"]) == (told, [{"role": "assistant", "content": "b"}])

    @pytest.mark.parametrize("margin", [-0.1, math.nan])
    def test_a_margin_that_cannot_be_meant(self, client: Client, margin: float) -> None:
        with pytest.raises(ValueError, match="least_margin"):
            self.found(client, Query("a", ["b"]), margin=margin)

    def test_nothing_to_ask_asks_nothing(self, client: Client, server: Any) -> None:
        assert self.found(client) == Pairs((), {}, {})
        assert server.seen == []


@pytest.mark.weights
def test_of_a_known_pair_the_better_one_is_chosen() -> None:
    """By the model itself: the direction is that of retrieval, not its opposite."""
    original = "a man cooks"
    detailed, vague = "a man in a white apron cooks pasta in a kitchen", "a person does something"
    with listening(Settings(models=("video-qpp@2",))) as url, Client(url) as client:
        for candidates in ([detailed, vague], [vague, detailed]):
            found = preference_pairs(
                client,
                "video-qpp@2",
                [Query(original, candidates)],
                least_margin=0.05,
                collection="msrvtt",
            )
            (pair,) = found.pairs
            assert (pair.chosen, pair.rejected) == (detailed, vague)
            assert pair.margin > 0
