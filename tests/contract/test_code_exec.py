"""Code execution over HTTP: passing and failing programs, disconnection, broken isolation."""

import asyncio
from collections.abc import Iterator

import httpx2
import pytest
from support.sandboxes import sandbox_processes, skip_without_isolation, wait_for_exit, wait_until
from support.servers import listening

from assay.settings import Settings
from assay_models.families.code_exec import model as code_exec

SETTINGS = Settings(models=("code-exec",))
TESTS = ["assert leap(2000)", "assert not leap(1900)", "assert leap(2004)"]
RIGHT = "```python\ndef leap(y):\n    return y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)\n```"
WRONG = "```python\ndef leap(y):\n    return y % 4 == 0\n```"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    skip_without_isolation()
    with listening(SETTINGS) as url:
        yield url


def item(response: str, **more: object) -> dict[str, object]:
    return {"response": response, "tests": TESTS, "group": "leap", **more}


def test_programs_are_run_once_and_cached(address: str) -> None:
    body = {"model": "code-exec", "items": [item(RIGHT), item(WRONG), item("I would rather not.")]}
    reply = httpx2.post(f"{address}/v1/score", json=body).json()
    right, wrong, none = reply["results"]
    assert [result["status"] for result in reply["results"]] == ["ok"] * 3
    assert (right["score"], right["channels"]) == (1.0, {"passed": 1.0, "all": 1.0})
    assert (wrong["score"], wrong["raw"]) == (0.0, pytest.approx(2 / 3))
    assert [test["outcome"] for test in wrong["details"]["tests"]] == ["pass", "fail", "pass"]
    assert (none["score"], none["source"], none["raw"]) == (0.0, "rule", None)
    assert none["details"] == {"extraction": "no_block"}
    assert right["flags"] == wrong["flags"] == []
    again = httpx2.post(f"{address}/v1/score", json=body).json()
    assert [result["source"] for result in again["results"]] == ["cache", "cache", "rule"]
    assert [result["details"] for result in again["results"]] == [
        result["details"] for result in reply["results"]
    ]


def test_candidates_are_ranked(address: str) -> None:
    body = {"model": "code-exec", "tests": TESTS, "candidates": [WRONG, RIGHT]}
    reply = httpx2.post(f"{address}/v1/best-of-n", json=body).json()
    assert reply["best"] == 1


def test_the_raw_score_is_the_share_of_passed_tests(address: str) -> None:
    body = {"model": "code-exec", "items": [item(WRONG)], "options": {"raw": True}}
    (wrong,) = httpx2.post(f"{address}/v1/score", json=body).json()["results"]
    assert wrong["score"] == pytest.approx(2 / 3)


def test_an_item_without_tests_is_rejected_with_its_field(address: str) -> None:
    incomplete: list[dict[str, object]] = [{}, {"tests": []}, {"tests": 3}]
    for more in incomplete:
        body = {"model": "code-exec", "items": [{"response": RIGHT, **more}]}
        answer = httpx2.post(f"{address}/v1/score", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"].startswith("items.0.tests")


def test_the_model_is_ready_and_passed_its_self_test(address: str) -> None:
    assert httpx2.get(f"{address}/readyz").status_code == 200
    parity = httpx2.get(f"{address}/v1/models/code-exec").json()["parity"]
    assert parity == {"expected": 1.0, "got": 1.0, "tolerance": 1e-9, "passed": True}


async def test_a_program_ends_when_its_client_disconnects(address: str) -> None:
    waiting = "```python\nimport time\ntime.sleep(999)\n```"
    body = {"model": "code-exec", "items": [item(waiting)]}
    async with httpx2.AsyncClient() as client:
        call = asyncio.create_task(client.post(f"{address}/v1/score", json=body, timeout=60))
        await wait_until(lambda: len(sandbox_processes()) >= 3 or call.done())
        processes = sandbox_processes()
        assert len(processes) >= 3, "launcher, supervisor and candidate"
        call.cancel()
        await asyncio.wait({call})
    await wait_for_exit(processes)
    assert sandbox_processes() == []


def test_a_model_without_working_isolation_is_not_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = "namespaces: Operation not permitted. To mend it, do this"
    monkeypatch.setattr(code_exec, "find_broken_guarantee", lambda bounds: broken)
    with listening(SETTINGS) as url:
        answer = httpx2.post(f"{url}/v1/score", json={"model": "code-exec", "items": [item(RIGHT)]})
        assert answer.status_code == 503
        problem = answer.json()
        assert problem["code"] == "model_failed"
        assert broken not in answer.text
        assert broken in httpx2.get(f"{url}/v1/models/code-exec").json()["failure"]
        assert httpx2.get(f"{url}/readyz").status_code == 503
