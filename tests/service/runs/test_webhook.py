"""Webhook: the posts, their retries, and the bounds of waiting."""

import base64
import hashlib
import hmac
import logging
import threading
from collections.abc import Iterator

import pytest
from support.doubles import new_metrics, value
from support.webhook_receivers import Receiver, dripping, receiving

import assay.runs.webhook
from assay.metrics import Metrics
from assay.runs.webhook import Webhook, decode_secret, parse_webhook_url
from assay_monitors.alerts import Alert, AlertChange

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OUTCOMES = ("sent", "failed", "dropped")


def change(step: int = 3) -> AlertChange:
    alert = Alert(
        run="team/exp-17",
        model="scripted@1",
        split="train",
        step=step,
        rule="null_share",
        severity="critical",
        since_step=step,
        value=0.5,
        threshold=0.2,
        about=[],
        evidence={"items": 64.0},
        limits="the reasons for a missing score: see the items' error codes",
    )
    return AlertChange("firing", alert)


def counts(metrics: Metrics) -> dict[str, float]:
    values = {
        outcome: value(metrics, "assay_alerts_total", outcome=outcome) for outcome in OUTCOMES
    }
    return {outcome: count for outcome, count in values.items() if count}


def new_webhook(
    url: str, metrics: Metrics, key: bytes | None, attempt_seconds: float = 30.0
) -> Webhook:
    return Webhook(
        parse_webhook_url(url),
        key=key,
        series=metrics.alerts,
        clock=lambda: 1_750_000_000.5,
        first_pause=0.001,
        attempt_seconds=attempt_seconds,
    )


@pytest.fixture
def metrics() -> Metrics:
    return new_metrics()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def webhook(receiver: Receiver, metrics: Metrics) -> Iterator[Webhook]:
    webhook = new_webhook(receiver.url, metrics, KEY)
    webhook.start()
    yield webhook
    receiver.open.set()
    webhook.close(30.0)


def test_an_alert_is_posted_once_with_a_signature(
    webhook: Webhook, receiver: Receiver, metrics: Metrics
) -> None:
    webhook.send(change())
    posted = receiver.next_post()
    webhook.close(30.0)
    assert counts(metrics) == {"sent": 1}
    assert receiver.inbox.empty()
    assert posted.path == "/hook?token=hush"
    assert posted.json["type"] == "run.alert.firing"
    assert posted.json["data"]["run"] == "team/exp-17"
    assert posted.json["data"]["limits"] == change().alert.limits
    name, stamp = posted.headers["webhook-id"], posted.headers["webhook-timestamp"]
    assert (name, stamp) == (posted.json["id"], "1750000000")
    signed = f"{name}.{stamp}.".encode() + posted.body
    digest = hmac.new(KEY, signed, hashlib.sha256).digest()
    assert posted.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_a_temporary_failure_is_retried_with_the_same_id(
    webhook: Webhook, receiver: Receiver, metrics: Metrics
) -> None:
    receiver.statuses.extend([(503, {}), (429, {"retry-after": "0"}), (500, {"retry-after": "x"})])
    webhook.send(change())
    names = {receiver.next_post().headers["webhook-id"] for _ in range(4)}
    webhook.close(30.0)
    assert names == {change().id}
    assert counts(metrics) == {"sent": 1}


@pytest.mark.parametrize("status", [400, 404, 301])
def test_a_permanent_failure_is_not_retried(
    webhook: Webhook, receiver: Receiver, metrics: Metrics, status: int
) -> None:
    receiver.statuses.append((status, {"location": "/elsewhere"}))
    webhook.send(change())
    webhook.send(change(4))
    steps = [receiver.next_post().json["data"]["step"] for _ in range(2)]
    webhook.close(30.0)
    assert steps == [3, 4]
    assert counts(metrics) == {"sent": 1, "failed": 1}


def test_delivery_fails_after_five_attempts_and_the_url_is_not_logged(
    webhook: Webhook, receiver: Receiver, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "assay")
    receiver.statuses.extend([(503, {})] * 5)
    webhook.send(change())
    webhook.send(change(4))
    attempts = [receiver.next_post().json["data"]["step"] for _ in range(6)]
    webhook.close(30.0)
    assert attempts == [3] * 5 + [4]
    assert counts(metrics) == {"sent": 1, "failed": 1}
    assert "127.0.0.1" in caplog.text
    assert "hush" not in caplog.text


def test_an_unreachable_receiver_is_a_failed_delivery(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, count = threading.Event(), metrics.alerts.count

    def count_and_signal(outcome: str, times: int = 1) -> None:
        count(outcome, times)
        counted.set()

    monkeypatch.setattr(metrics.alerts, "count", count_and_signal)
    with receiving() as closed:
        url = closed.url
    webhook = new_webhook(url, metrics, None)
    webhook.start()
    webhook.send(change())
    assert counted.wait(30)
    webhook.close(30.0)
    assert counts(metrics) == {"failed": 1}


def test_alerts_beyond_the_queue_are_dropped_and_closing_does_not_wait_for_a_hanging_receiver(
    webhook: Webhook, receiver: Receiver, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay.runs.webhook, "MAX_WAITING_ALERTS", 2)
    receiver.open.clear()
    webhook.send(change(0))
    receiver.next_post()
    for step in range(1, 5):
        webhook.send(change(step))
    assert counts(metrics) == {"dropped": 2}
    webhook.close(0.0)
    assert counts(metrics) == {"dropped": 4}
    webhook.send(change(5))
    assert counts(metrics) == {"dropped": 5}


def test_waiting_alerts_are_sent_once_at_shutdown(
    webhook: Webhook, receiver: Receiver, metrics: Metrics
) -> None:
    receiver.open.clear()
    for step in range(3):
        webhook.send(change(step))
    receiver.next_post()
    receiver.statuses.extend([(503, {})] * 2)
    receiver.open.set()
    webhook.close(30.0)
    assert sum(counts(metrics).values()) == 3
    assert counts(metrics)["sent"] >= 1


@pytest.mark.parametrize("message", [b"X-A: a\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_receiver_that_never_ends_its_reply_costs_an_attempt_its_deadline(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, message: bytes
) -> None:
    monkeypatch.setattr(assay.runs.webhook, "MAX_ATTEMPTS", 2)
    with dripping(message, 0.01) as (url, connections):
        webhook = new_webhook(url, metrics, None, attempt_seconds=0.2)
        for step in range(2):
            webhook.send(change(step))
        assert value(metrics, "assay_alerts_waiting") == 2
        webhook.start()
        attempts = {connections.get(timeout=30) for _ in range(4)}
        webhook.close(30.0)
        assert connections.empty()
    assert len(attempts) == 4
    assert counts(metrics) == {"failed": 2}
    assert value(metrics, "assay_alerts_waiting") == 0


def test_a_full_queue_drops_the_oldest_alert(
    webhook: Webhook, receiver: Receiver, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay.runs.webhook, "MAX_WAITING_ALERTS", 2)
    receiver.open.clear()
    webhook.send(change(0))
    steps = [receiver.next_post().json["data"]["step"]]
    for step in range(1, 5):
        webhook.send(change(step))
    assert value(metrics, "assay_alerts_waiting") == 3
    receiver.open.set()
    steps += [receiver.next_post().json["data"]["step"] for _ in range(2)]
    webhook.close(30.0)
    assert (steps, counts(metrics)) == ([0, 3, 4], {"sent": 3, "dropped": 2})


def test_the_outcomes_of_alerts_are_series_from_the_start(metrics: Metrics) -> None:
    families = {family.name: family for family in metrics.registry.collect()}
    samples = families["assay_alerts"].samples
    shown = {
        sample.labels["outcome"]: sample.value
        for sample in samples
        if sample.name.endswith("total")
    }
    assert shown == dict.fromkeys(OUTCOMES, 0)


@pytest.mark.parametrize("url", ["ftp://hush", "hush", "http://", "http://a:hush"])
def test_a_malformed_url_is_rejected_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as refused:
        parse_webhook_url(url)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("secret", ["hush", "whsec_hush", "whsec_" + "aHVzaA==", SECRET[6:]])
def test_a_malformed_secret_is_rejected_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="openssl rand") as refused:
        decode_secret(secret)
    assert secret.removeprefix("whsec_") not in str(refused.value)
    assert decode_secret(SECRET) == KEY
