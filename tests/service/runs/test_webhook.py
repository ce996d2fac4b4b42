"""What a receiver of alerts is told, how often it is tried, and what is never waited for."""

import base64
import hashlib
import hmac
import logging
from collections.abc import Iterator

import pytest
from support.doubles import new_metrics, value
from support.webhook_receivers import Receiver, receiving

import assay.runs.webhook
from assay.metrics import Metrics
from assay.runs.webhook import Webhook, checked_url, secret_key
from assay_monitors.alerts import Alert, AlertChange

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OUTCOMES = ("sent", "failed", "dropped")


def change(step: int = 3) -> AlertChange:
    alert = Alert(
        "team/exp-17", "scripted@1", "train", step, "null_share", "critical", step, 0.5, 0.2, [],
        {"items": 64.0}, "why: the error codes can",
    )  # fmt: skip
    return AlertChange("firing", alert)


def counts(metrics: Metrics) -> dict[str, float]:
    every = {one: value(metrics, "assay_alerts_total", outcome=one) for one in OUTCOMES}
    return {outcome: times for outcome, times in every.items() if times}


@pytest.fixture
def metrics() -> Metrics:
    return new_metrics()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def webhook(receiver: Receiver, metrics: Metrics) -> Iterator[Webhook]:
    made = Webhook(checked_url(receiver.url), KEY, metrics.alerts, lambda: 1_750_000_000.5, 0.001)
    made.start()
    yield made
    receiver.open.set()
    made.close(30.0)


def test_an_alert_is_posted_once_and_signed(
    webhook: Webhook, receiver: Receiver, metrics: Metrics
) -> None:
    webhook.send(change())
    told = receiver.next()
    webhook.close(30.0)
    assert counts(metrics) == {"sent": 1}
    assert receiver.inbox.empty()
    assert told.path == "/hook?token=hush"
    assert told.json["type"] == "run.alert.firing"
    assert told.json["data"]["run"] == "team/exp-17"
    assert told.json["data"]["cannot_tell"] == "why: the error codes can"
    name, stamp = told.headers["webhook-id"], told.headers["webhook-timestamp"]
    assert (name, stamp) == (told.json["id"], "1750000000")
    signed = f"{name}.{stamp}.".encode() + told.body
    digest = hmac.new(KEY, signed, hashlib.sha256).digest()
    assert told.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_what_may_help_is_tried_again_under_the_same_id(
    webhook: Webhook, receiver: Receiver, metrics: Metrics
) -> None:
    receiver.statuses.extend([(503, {}), (429, {"retry-after": "0"}), (500, {"retry-after": "x"})])
    webhook.send(change())
    names = {receiver.next().headers["webhook-id"] for _ in range(4)}
    webhook.close(30.0)
    assert names == {change().id}
    assert counts(metrics) == {"sent": 1}


@pytest.mark.parametrize("status", [400, 404, 301])
def test_what_cannot_help_is_not_tried_again(
    webhook: Webhook, receiver: Receiver, metrics: Metrics, status: int
) -> None:
    receiver.statuses.append((status, {"location": "/elsewhere"}))
    webhook.send(change())
    webhook.send(change(4))
    steps = [receiver.next().json["data"]["step"] for _ in range(2)]
    webhook.close(30.0)
    assert steps == [3, 4]
    assert counts(metrics) == {"sent": 1, "failed": 1}


def test_after_five_tries_it_is_given_up_and_the_url_stays_secret(
    webhook: Webhook, receiver: Receiver, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "assay")
    receiver.statuses.extend([(503, {})] * 5)
    webhook.send(change())
    webhook.send(change(4))
    tries = [receiver.next().json["data"]["step"] for _ in range(6)]
    webhook.close(30.0)
    assert tries == [3] * 5 + [4]
    assert counts(metrics) == {"sent": 1, "failed": 1}
    assert "127.0.0.1" in caplog.text
    assert "hush" not in caplog.text


def test_nobody_there_is_a_failure_and_no_more(metrics: Metrics) -> None:
    with receiving() as gone:
        url = gone.url
    webhook = Webhook(checked_url(url), None, metrics.alerts, lambda: 0.0, 0.001)
    webhook.start()
    webhook.send(change())
    while not counts(metrics):
        webhook._thread.join(0.01)
    webhook.close(30.0)
    assert counts(metrics) == {"failed": 1}


def test_what_does_not_fit_is_dropped_and_a_stop_does_not_wait_for_a_receiver_that_hangs(
    webhook: Webhook, receiver: Receiver, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay.runs.webhook, "CAPACITY", 2)
    receiver.open.clear()
    webhook.send(change(0))
    receiver.next()
    for step in range(1, 5):
        webhook.send(change(step))
    assert counts(metrics) == {"dropped": 2}
    webhook.close(0.0)
    assert counts(metrics) == {"dropped": 4}
    webhook.send(change(5))
    assert counts(metrics) == {"dropped": 5}


def test_what_waits_when_the_server_stops_is_sent_once_more(
    webhook: Webhook, receiver: Receiver, metrics: Metrics
) -> None:
    receiver.open.clear()
    for step in range(3):
        webhook.send(change(step))
    receiver.next()
    receiver.statuses.extend([(503, {})] * 2)
    receiver.open.set()
    webhook.close(30.0)
    assert sum(counts(metrics).values()) == 3
    assert counts(metrics)["sent"] >= 1


@pytest.mark.parametrize("url", ["ftp://hush", "hush", "http://", "http://a:hush"])
def test_a_url_that_cannot_be_posted_to_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as refused:
        checked_url(url)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("secret", ["hush", "whsec_hush", "whsec_" + "aHVzaA==", SECRET[6:]])
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="openssl rand") as refused:
        secret_key(secret)
    assert secret.removeprefix("whsec_") not in str(refused.value)
    assert secret_key(SECRET) == KEY
