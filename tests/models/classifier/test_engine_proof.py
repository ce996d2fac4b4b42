"""The proof of an engine's numbers, against real servers that speak the protocols."""

import random
from pathlib import Path
from typing import Any

import pytest
from support import engine_models as engines
from support.engine_models import example_score, open_remote, write_engine_model
from support.engine_servers import (
    LABELS,
    PROTOCOLS,
    EngineServer,
    Handler,
    Received,
    logits_of,
    vllm,
)

from assay_models.base import ItemError
from assay_models.card import CardError
from assay_models.engines.errors import EngineError
from assay_models.families.classifier.remote import RemoteClassifier
from assay_models.remote import RemoteCallFailed

TEXTS = ("the first row", "and a second, longer one", "a third")


@pytest.mark.parametrize("protocol", [*PROTOCOLS])
async def test_proof_of_a_true_engine_holds(protocol: str, tmp_path: Path) -> None:
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        folder = write_engine_model(
            tmp_path, url=server.url, protocol=protocol, example=example_score(protocol)
        )
        classifier = open_remote(folder)
        await classifier.proof.prove()
        assert classifier.proof.unproven is None
        sequences = [classifier.encode_text(text, None, "error") for text in TEXTS]
        raws = await classifier.logits([sequence.input() for sequence in sequences])
        rows: list[Any] = [sequence.text or sequence.ids.tolist() for sequence in sequences]
        assert raws == [pytest.approx(logits_of(row)) for row in rows]
        await classifier.proof.close()


TRAPS: list[tuple[str, Handler, str]] = [
    ("vllm", engines.without_activation_option, "ignores the option"),
    ("vllm", engines.raw_whatever_is_asked, "ignores the option"),
    ("vllm", engines.always_softmax, "same number for every text"),
    ("vllm", engines.rotated_rows, "mixes up rows"),
    ("sglang", engines.softmax_sglang, "same number for every text"),
    ("sglang", engines.second_bos_sglang, "tokens"),
    ("tei", engines.activated_tei, "ignores the option"),
    ("tei", engines.second_bos_tei, "example"),
]


@pytest.mark.parametrize(("protocol", "handler", "reason"), TRAPS)
async def test_proof_of_an_engine_with_a_trap_names_it(
    protocol: str, handler: Handler, reason: str, tmp_path: Path
) -> None:
    async with EngineServer(handler).listening() as server:
        folder = write_engine_model(
            tmp_path, url=server.url, protocol=protocol, example=example_score(protocol)
        )
        classifier = open_remote(folder)
        require_example(classifier, example_score(protocol))
        await classifier.proof.prove()
        assert reason in (classifier.proof.unproven or "")
        assert server.url in (classifier.proof.unproven or "")
        row = classifier.encode_text("a row", None, "error").input()
        with pytest.raises(RemoteCallFailed) as raised:
            await classifier.logits([row])
        assert raised.value.code == "model_not_ready"
        assert server.url not in raised.value.detail
        await classifier.proof.close()


def require_example(classifier: Any, expected: float) -> None:
    """Add the card's example to the proof, as the service does."""
    row = classifier.encode_text(engines.EXAMPLE_TEXT, None, "error").input()

    def verify(raws: Any) -> None:
        if abs(raws[0][0] - expected) > 1e-3:
            raise CardError(f"makes the card's example {raws[0][0]}")

    classifier.proof.require((row,), verify)


async def test_proof_of_other_label_names_names_both_orders(tmp_path: Path) -> None:
    async with EngineServer(engines.other_label_names_tei, labels=3).listening() as server:
        folder = write_engine_model(
            tmp_path, url=server.url, protocol="tei", labels=LABELS, example=0.0
        )
        classifier = open_remote(folder)
        await classifier.proof.prove()
        assert "orders its labels" in (classifier.proof.unproven or "")
        await classifier.proof.close()


@pytest.mark.parametrize("protocol", ["sglang", "assay"])
def test_card_that_nothing_can_prove_is_refused(protocol: str, tmp_path: Path) -> None:
    folder = write_engine_model(tmp_path, url="http://127.0.0.1:9", protocol=protocol)
    with pytest.raises(CardError, match="example"):
        open_remote(folder)


async def test_verdict_of_a_proof_is_logged_once_with_its_url_and_its_bound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "assay_models")
    server = EngineServer(engines.rotated_rows)
    async with server.listening():
        classifier = open_remote(write_engine_model(tmp_path, url=server.url))
        classifier.proof.require([], lambda raws: None)
        for handler in (engines.rotated_rows, vllm, engines.rotated_rows):
            server.handler = handler
            await classifier.proof.prove()
            await classifier.proof.prove()
        await classifier.proof.close()
    verdicts = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in verdicts] == ["WARNING", "INFO", "WARNING"]
    assert all(server.url in text for _, text in verdicts)
    assert "mixes up rows" in verdicts[0][1]
    assert "the bound of float32 is" in verdicts[1][1]
    assert "checks that hold: 1" in verdicts[1][1]


async def test_proof_without_an_engine_waits_for_it(tmp_path: Path) -> None:
    folder = write_engine_model(tmp_path, url="http://127.0.0.1:9")
    classifier = open_remote(folder)
    await classifier.proof.prove()
    assert classifier.proof.unproven is not None
    async with EngineServer(vllm).listening() as server:
        folder = write_engine_model(tmp_path, url=server.url)
        await classifier.proof.close()
        classifier = open_remote(folder)
        await classifier.proof.prove()
        assert classifier.proof.unproven is None
        await classifier.proof.close()


async def test_other_weights_under_the_same_name_fail_the_first_call(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = open_remote(write_engine_model(tmp_path, url=server.url))
        await classifier.proof.prove()
        parts = dict(classifier.fingerprint_parts)
        server.handler = engines.shifted(vllm, 1)
        row = classifier.encode_text("a row", None, "error").input()
        with pytest.raises(RemoteCallFailed, match="known row"):
            await classifier.logits([row])
        assert classifier.proof.unproven is not None
        await classifier.proof.prove()
        assert classifier.proof.unproven is None
        assert classifier.fingerprint_parts != parts
        (raw,) = await classifier.logits([row])
        assert raw == pytest.approx(logits_of([number + 1 for number in row.payload.ids]))
        await classifier.proof.close()


async def test_rows_in_another_order_fail_the_first_call_that_moves_the_canary(
    tmp_path: Path,
) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = open_remote(write_engine_model(tmp_path, url=server.url))
        await classifier.proof.prove()
        server.handler = engines.rotated_rows
        rows = [classifier.encode_text(text, None, "error").input() for text in TEXTS]
        with pytest.raises(RemoteCallFailed, match="known row"):
            await classifier.logits(rows)
        await classifier.proof.close()


async def test_each_call_carries_one_row_more_at_any_place(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = open_remote(write_engine_model(tmp_path, url=server.url))
        await classifier.proof.prove()
        rows = [classifier.encode_text(text, None, "error").input() for text in TEXTS]
        own = [row.payload.ids.tolist() for row in rows]
        places = set()
        for _ in range(60):
            await classifier.logits(rows)
            sent = server.posts[-1].body["input"]
            assert len(sent) == len(own) + 1
            places.add(next(at for at, row in enumerate(sent) if row not in own))
        assert places == {0, 1, 2, 3}
        await classifier.proof.close()


@pytest.mark.parametrize("field", ["version", "root"])
async def test_another_identity_has_another_fingerprint(field: str, tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = open_remote(write_engine_model(tmp_path, url=server.url))
        await classifier.proof.prove()
        parts = dict(classifier.fingerprint_parts)
        await classifier.proof.prove()
        assert dict(classifier.fingerprint_parts) == parts
        setattr(server, field, "another")
        await classifier.proof.prove()
        assert classifier.proof.unproven is None
        assert dict(classifier.fingerprint_parts) != parts
        await classifier.proof.close()


async def test_engine_that_names_no_weights_has_a_fingerprint_of_one_process(
    tmp_path: Path,
) -> None:
    async with EngineServer(vllm).listening() as server:
        folder = write_engine_model(tmp_path, url=server.url)
        first, second = await parts_of(folder), await parts_of(folder)
        assert first != second


NAMED = [("vllm", 'revision = "2026-11-30"'), ("sglang", ""), ("tei", ""), ("assay", "")]


@pytest.mark.parametrize(("protocol", "engine"), NAMED)
async def test_replicas_of_an_engine_that_names_its_weights_have_one_fingerprint(
    protocol: str, engine: str, tmp_path: Path
) -> None:
    def noisy(server: EngineServer, request: Received) -> tuple[int, Any]:
        status, value = PROTOCOLS[protocol](server, request)
        return status, moved(value, noise.uniform(-0.03, 0.03))

    noise = random.Random(0)
    async with EngineServer(noisy).listening() as server:
        score = example_score(protocol)
        engine = f'{engine}\ndtype = "{"float32" if protocol in ("sglang", "tei") else "bfloat16"}"'
        folder = write_engine_model(
            tmp_path, url=server.url, protocol=protocol, example=score, engine=engine
        )
        card = folder / "card.toml"
        card.write_text(card.read_text() + "\n[bounds]\nfloat32 = 0.1\nbfloat16 = 0.1\n")
        parts = [await parts_of(folder) for _ in range(6)]
        assert all(each == parts[0] for each in parts)


async def test_other_weights_under_one_revision_are_refused(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as server:
        folder = write_engine_model(tmp_path, url=server.url, engine='revision = "1"')
        classifier = open_remote(folder)
        await classifier.proof.prove()
        parts = classifier.fingerprint_parts
        server.handler = engines.shifted(vllm, 1)
        await classifier.proof.prove()
        assert "another revision" in (classifier.proof.unproven or "")
        server.handler = vllm
        await classifier.proof.prove()
        assert classifier.proof.unproven is None
        assert classifier.fingerprint_parts == parts
        await classifier.proof.close()


async def parts_of(folder: Path) -> Any:
    """Return the parts of the fingerprint that a replica has which proves the engine once."""
    classifier = open_remote(folder)
    await classifier.proof.prove()
    assert classifier.proof.unproven is None
    await classifier.proof.close()
    return classifier.fingerprint_parts


def moved(value: Any, by: float) -> Any:
    """Return a reply whose numbers are moved a little."""
    if isinstance(value, list):
        return [moved(part, by) for part in value]
    if isinstance(value, dict):
        return {name: moved(part, by) for name, part in value.items()}
    return value + by if isinstance(value, float) else value


async def test_lost_engine_keeps_its_proof_and_is_proven_again_soon(tmp_path: Path) -> None:
    server = EngineServer(vllm)
    async with server.listening():
        classifier = open_remote(write_engine_model(tmp_path, url=server.url))
        await classifier.proof.prove()
    row = classifier.encode_text("a row", None, "error").input()
    with pytest.raises(EngineError) as raised:
        await classifier.logits([row])
    assert raised.value.code == "engine_unavailable"
    await classifier.proof.due()  # at once, and not on schedule
    await classifier.proof.prove()
    assert classifier.proof.unproven is None
    async with server.listening(server.port):
        await classifier.proof.prove()
        (raw,) = await classifier.logits([row])
        assert raw == pytest.approx(logits_of(row.payload.ids))
    await classifier.proof.close()


async def test_engine_with_less_room_than_the_card_is_refused(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as server:
        folder = write_engine_model(tmp_path, url=server.url)
        card = folder / "card.toml"
        card.write_text(card.read_text().replace("max_tokens = 256", "max_tokens = 2048"))
        classifier = open_remote(folder)
        await classifier.proof.prove()
        assert "takes 1024 tokens" in (classifier.proof.unproven or "")
        await classifier.proof.close()


@pytest.mark.parametrize(("protocol", "labels"), [("vllm", LABELS), ("sglang", ("LABEL_0",))])
def test_pair_with_segments_is_refused_where_ids_are_sent(
    protocol: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    folder = write_engine_model(
        tmp_path,
        url="http://127.0.0.1:9",
        protocol=protocol,
        kind="bert",
        labels=labels,
        example=0.0,
        config={"type_vocab_size": 2},
    )
    classifier = open_remote(folder)
    with pytest.raises(ItemError, match="segments"):
        classifier.encode_text("one", "two", "error")
    assert classifier.encode_text("one", None, "error").type_ids is None


async def test_pairs_with_segments_go_to_vllm_as_text_with_a_canary_of_their_own(
    tmp_path: Path,
) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = open_pairs(tmp_path, server)
        await classifier.proof.prove()
        assert classifier.proof.unproven is None
        pair = classifier.encode_text("one", "two", "error")
        alone = classifier.encode_text("three", None, "error")
        proven = len(server.posts)
        raws = await classifier.logits([pair.input(), alone.input(), pair.input()])
        right = [logits_of("one\ntwo"), logits_of(alone.ids.tolist()), logits_of("one\ntwo")]
        assert raws == [pytest.approx(raw) for raw in right]
        ids, pairs = server.posts[proven:]
        assert (ids.path, len(ids.body["input"])) == ("/classify", 2)
        assert (pairs.path, len(pairs.body["queries"])) == ("/score", 3)
        await classifier.proof.close()


async def test_other_numbers_for_pairs_alone_leave_the_engine_unproven(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = open_pairs(tmp_path, server)
        await classifier.proof.prove()
        server.handler = engines.swapped_pairs
        row = classifier.encode_text("a single text", None, "error").input()
        assert not isinstance((await classifier.logits([row]))[0], ItemError)
        with pytest.raises(RemoteCallFailed, match="known row"):
            await classifier.logits([classifier.encode_text("one", "two", "error").input()])
        await classifier.proof.close()


def open_pairs(folder: Path, server: EngineServer) -> RemoteClassifier:
    """Open a BERT with one label that reads segments."""
    config = {"type_vocab_size": 2}
    return open_remote(write_engine_model(folder, url=server.url, kind="bert", config=config))


def test_text_that_the_engine_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    folder = write_engine_model(
        tmp_path, url="http://127.0.0.1:9", protocol="tei", kind="bert", example=0.0
    )
    classifier = open_remote(folder)
    assert classifier.encode_text("one", "two", "error").text == ("one", "two")
    for text in ("one [SEP] two", "one " * 200):
        with pytest.raises(ItemError, match="other tokens"):
            classifier.encode_text(text, None, "right")


@pytest.mark.parametrize(
    ("options", "reason"),
    [("num_hidden_layers = 2", "num_hidden_layers"), ('pooling = "last"', "pooling")],
)
def test_option_of_a_local_checkpoint_is_refused(options: str, reason: str, tmp_path: Path) -> None:
    folder = write_engine_model(tmp_path, url="http://127.0.0.1:9", options=options)
    with pytest.raises(CardError, match=reason):
        open_remote(folder)
