"""The dashboard of a server that changes, requires a key, has no runs, or cannot be reached."""

from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Route, expect
from support.servers import listening

from assay.settings import Settings

from .browser import Visit, needs_browser, visiting
from .recorded import record

pytestmark = [pytest.mark.slow, needs_browser]

RUN = "team/sweep-01"
VIEW = "runs/team%2Fsweep-01"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    record(tmp_path / "runs.db", runs=2, steps=10, items=8)
    return Settings(models=("reference",), runs=tmp_path / "runs.db")


def record_telemetry(address: str, step: int) -> None:
    body = {"step": step, "values": {"kl": 0.1}}
    httpx2.post(f"{address}/v1/runs/{RUN}/telemetry", json=body).raise_for_status()


async def wait_for_step(visit: Visit, step: int) -> None:
    await expect(visit.page.locator(".facts")).to_contain_text(f"step 0 to {step}")


async def test_a_recorded_step_appears_without_a_reload(settings: Settings) -> None:
    with listening(settings) as address:
        async with visiting(address) as visit:
            await visit.go(VIEW)
            await wait_for_step(visit, 36)
            await expect(visit.page.locator("#live")).to_have_text("Live")
            await visit.page.locator("#scores summary").click()
            record_telemetry(address, 77)
            await wait_for_step(visit, 77)
            table = visit.page.get_by_role("table", name="Scores by step")
            await expect(table.locator("tbody tr")).to_have_count(11)
            assert visit.paths().count("/") == 1


async def test_a_models_card_shows_its_current_load(settings: Settings) -> None:
    with listening(settings) as address:
        async with visiting(address) as visit:
            await visit.go()
            scored = visit.page.locator("article.card dl div").first
            await expect(scored).to_have_text("Items scored0")
            body = {"model": "reference", "items": [{"prompt": "a b", "response": "b"}] * 3}
            httpx2.post(f"{address}/v1/score", json=body).raise_for_status()
            await expect(scored).to_have_text("Items scored3")
            await expect(visit.page.locator("article.card dl")).to_contain_text("items/s")


async def test_without_events_the_page_polls(settings: Settings) -> None:
    async def without_events(route: Route) -> None:
        if "event-stream" in route.request.headers["accept"]:
            await route.abort()
        else:
            await route.continue_()

    with listening(settings) as address:
        async with visiting(address) as visit:
            await visit.page.route("**/events", without_events)
            await visit.go(VIEW)
            await expect(visit.page.locator("#live")).to_have_text("Polling every 5 s")
            record_telemetry(address, 78)
            await wait_for_step(visit, 78)
            visit.errors.clear()  # the browser logs the aborted requests


async def test_a_key_is_requested_sent_and_kept_in_this_tab_only(settings: Settings) -> None:
    keys = Settings(api_keys=("right-0123456789abc",)).api_keys
    with listening(settings.model_copy(update={"api_keys": keys})) as address:
        async with visiting(address) as visit:
            await visit.go(VIEW)
            await expect(visit.page.locator("h1")).to_have_text("This server requires an API key")
            field = visit.page.get_by_label("API key")
            await expect(field).to_be_focused()
            await field.fill("wrong")
            await field.press("Enter")
            await expect(visit.page.get_by_role("alert")).to_contain_text("does not accept")
            await visit.page.get_by_label("API key").fill("right-0123456789abc")
            await visit.page.get_by_role("button", name="Open").click()
            await expect(visit.page.locator("h1")).to_have_text(RUN)
            await expect(visit.page.locator("#live")).to_have_text("Live")
            requests = [request for request in visit.requests if "/v1/" in request.url]
            assert requests[-1].headers["authorization"] == "Bearer right-0123456789abc"
            assert not any("right-0123456789abc" in request.url for request in visit.requests)
            stored = await visit.page.evaluate(
                "[Object.values(sessionStorage), localStorage.length]"
            )
            assert stored == [["right-0123456789abc"], 0]
            assert await visit.page.context.cookies() == []
            other = await visit.page.context.new_page()
            await other.goto(f"{address}/")
            await expect(other.locator("h1")).to_have_text("This server requires an API key")
            visit.errors.clear()  # the browser logs the 401 and the 403


@pytest.mark.parametrize(
    ("runs", "words"),
    [("empty", 'run={"id": "exp-17", "step": step}'), ("off", "ASSAY_RUNS")],
)
async def test_a_server_without_runs_shows_how_to_record_one(
    tmp_path: Path, runs: str, words: str
) -> None:
    kept = "off" if runs == "off" else tmp_path / "empty.db"
    with listening(Settings(models=("reference",), runs=kept)) as address:
        async with visiting(address) as visit:
            await visit.go()
            await expect(visit.page.locator("#runs")).to_contain_text(words)
            await expect(visit.page.locator("article.card h3")).to_contain_text("reference@1")
            visit.errors.clear()  # the browser logs the 404


async def test_a_run_without_gold_or_groups_shows_how_to_record_them(settings: Settings) -> None:
    with listening(settings) as address:
        record_telemetry(address, 36)
        httpx2.post(
            f"{address}/v1/runs/new/telemetry", json={"step": 1, "values": {"kl": 0.1}}
        ).raise_for_status()
        async with visiting(address) as visit:
            await visit.go("runs/new")
            await expect(visit.page.locator("#gold")).to_contain_text("/gold")
            await expect(visit.page.locator("#groups")).to_contain_text("group")
            await expect(visit.page.locator("#scores")).to_contain_text("No item of this run")


async def test_a_run_that_is_not_assessed_is_grey_and_shows_how_far_its_rules_are(
    settings: Settings,
) -> None:
    with listening(settings) as address:
        note = {"note": "with <b>more</b> dropout"}
        httpx2.patch(f"{address}/v1/runs/{RUN}", json=note).raise_for_status()
        httpx2.get(f"{address}/v1/runs/{RUN}/health").raise_for_status()
        async with visiting(address) as visit:
            await visit.go()
            row = visit.page.get_by_role("row", name=RUN)
            await expect(row.locator(".status")).to_have_text("waiting")
            await expect(row).to_contain_text(note["note"])
            await visit.go(VIEW)
            status = visit.page.locator(".facts .status")
            await expect(status).to_have_text("waiting")
            await expect(status).to_have_attribute("data-level", "waiting")
            await expect(visit.page.locator("main .note")).to_have_text(note["note"])
            await expect(visit.page.locator("#alerts")).to_contain_text("not assessed yet")
            rules = visit.page.get_by_role("list", name="Rules at the latest step")
            for rule, state in (
                ("Null share", "waiting (80/200 items)"),
                ("Constant score", "quiet"),
                ("Clipped share", "not fed"),
            ):
                item = rules.get_by_role("listitem").filter(has_text=rule)
                await expect(item.locator(".status")).to_have_text(state)


async def test_errors_are_shown_and_can_be_retried(settings: Settings) -> None:
    with listening(settings) as address:
        async with visiting(address) as visit:
            await visit.go("runs/unknown")
            await expect(visit.page.locator("h1")).to_have_text("Run not found")
            await expect(visit.page.locator("main")).to_contain_text("GET /v1/runs lists")
            await visit.page.route("**/v1/runs", lambda route: route.abort())
            await visit.page.route("**/v1/models", lambda route: route.abort())
            await visit.page.get_by_role("link", name="Overview").click()
            await expect(visit.page.locator("h1")).to_have_text("The server cannot be reached")
            await visit.page.unroute("**/v1/models")
            await visit.page.unroute("**/v1/runs")
            await visit.page.get_by_role("button", name="Try again").click()
            await expect(visit.page.locator("table.runs tbody tr")).to_have_count(2)
            visit.errors.clear()  # the browser logs the failed requests


async def test_names_are_shown_as_text_and_never_as_markup(settings: Settings) -> None:
    name = '<img src=x onerror=alert(1)>/"&?#%2F'
    path = "".join(f"%{byte:02X}" for byte in name.replace("/", "\0").encode()).replace("%00", "/")
    value = "<script>alert(2)</script>"
    telemetry = {"step": 1, "values": {value: 1.0}}
    with listening(settings) as address:
        httpx2.post(f"{address}/v1/runs/{path}/telemetry", json=telemetry).raise_for_status()
        async with visiting(address) as visit:
            await visit.go()
            await visit.page.get_by_role("link", name=name, exact=True).click()
            await expect(visit.page.locator("h1")).to_have_text(name)
            await expect(visit.page.locator("#telemetry h3")).to_have_text(value)
            assert await visit.page.locator("main img, main script").count() == 0
