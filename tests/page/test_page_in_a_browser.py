"""The dashboard in a real Chromium: content, requests, keyboard, colour schemes, accessibility."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import expect
from support.servers import listening

from assay.settings import Settings

from .browser import BROWSER_FOLDER, Visit, needs_browser, visiting
from .recorded import HACKED_RUN, record

pytestmark = [pytest.mark.slow, needs_browser]

RUNS = 50
# A visit to a view requests the page's files once, and few responses of the API.
FILES, MAX_RESPONSES, MAX_BYTES = 21, 8, 400_000
VIEWS = {
    "overview": "",
    "run": f"runs/{HACKED_RUN}",
    "healthy run": "runs/team%2Fsweep-01",
    "model": "models/reference%401",
    "comparison": f"compare/{HACKED_RUN}/team%2Fsweep-01",
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "runs.db"
    assert record(path, RUNS) == 100_000
    return path


@pytest.fixture(scope="module")
def address(recorded: Path) -> Iterator[str]:
    with listening(Settings(models=("reference",), runs=recorded)) as url:
        yield url


async def test_fifty_runs_are_listed_with_three_requests(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go()
        rows = visit.page.locator("table.runs tbody tr:visible")
        await expect(rows).to_have_count(RUNS)
        await expect(visit.page.locator("article.card h3")).to_contain_text("reference@1")
        await visit.page.get_by_label("Show runs named").fill("SWEEP-1")
        await expect(rows).to_have_count(10)
        await expect(visit.page.locator(".match-count")).to_have_text("10 of 50 runs")
        assert sorted(path for path in visit.paths() if "page/" not in path and path != "/") == [
            "/metrics",
            "/v1/models",
            "/v1/runs",
        ]
        await check_traffic(visit)


async def test_a_run_is_drawn_with_few_requests(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go(f"runs/{HACKED_RUN}")
        await expect(visit.page.locator("h1")).to_have_text(HACKED_RUN)
        await expect(visit.page.locator(".facts .status")).to_have_text("critical")
        await expect(visit.page.locator("#alerts article")).to_have_count(4)
        await expect(visit.page.locator(".track button")).to_have_count(3)
        await expect(visit.page.locator("#live")).to_have_attribute("data-state", "live")
        assert await painted_share(visit, "#scores canvas") > 0.2
        for figure in await visit.page.locator("figure").all():
            await expect(figure.locator("canvas")).to_have_count(1)
        await check_traffic(visit)


async def check_traffic(visit: Visit) -> None:
    """Check that the visit took few requests and few bytes."""
    assert len(visit.requests) <= FILES + MAX_RESPONSES, visit.paths()
    requests = [request for request in visit.requests if "events" not in request.url]
    responses = [await request.response() for request in requests]
    sizes = [int(reply.headers["content-length"]) for reply in responses if reply is not None]
    assert sum(sizes) <= MAX_BYTES


async def painted_share(visit: Visit, canvas: str) -> float:
    """Return the share of a canvas that is not empty."""
    script = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let seen = 0;
        for (let place = 3; place < data.length; place += 4) seen += data[place] > 0;
        return seen / (data.length / 4);
    }"""
    return float(await visit.page.locator(canvas).evaluate(script))


async def test_an_episode_shows_its_evidence_and_limits(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go(f"runs/{HACKED_RUN}")
        await visit.page.locator(".track button").first.click()
        opened = visit.page.locator(".episodes details[open]")
        await expect(opened).to_have_count(1)
        await expect(opened.locator("summary")).to_be_focused()
        await expect(opened).to_contain_text("fired at step")
        await expect(opened).to_contain_text("the threshold is")
        await expect(opened.locator("dt").first).to_be_visible()
        await expect(opened).to_contain_text("It cannot distinguish")


async def test_every_chart_has_its_numbers_as_a_table(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go(f"runs/{HACKED_RUN}")
        await visit.page.locator("#scores summary").click()
        table = visit.page.get_by_role("table", name="Scores by step")
        await expect(table.locator("tbody tr")).to_have_count(50)
        await visit.page.locator("#rules details.table summary").click()
        fired = visit.page.get_by_role("table", name="When rules fired")
        await expect(fired.locator("tbody tr")).to_have_count(3)
        for section, name, columns in (
            ("channels", "Channels by step", 4),
            ("items", "Items by step", 6),
            ("telemetry", "Telemetry by step", 3),
        ):
            await visit.page.locator(f"#{section} details.table summary").click()
            numbers = visit.page.get_by_role("table", name=name)
            await expect(numbers.locator("thead th")).to_have_count(columns)
            await expect(numbers.locator("tbody tr")).to_have_count(50)
        gold = visit.page.get_by_role("table", name="Measured against unit-tests")
        await expect(gold.locator("tbody tr")).to_have_count(5)
        for kind in ("Worst", "Best"):
            groups = visit.page.get_by_role("table", name=re.compile(f"^{kind}"))
            assert await groups.locator("tbody code").first.inner_text()


async def test_runs_can_be_opened_and_read_by_keyboard(address: str) -> None:
    async with visiting(address) as visit:
        page, keys = visit.page, visit.page.keyboard
        await visit.go()
        await keys.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await keys.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        await keys.press("Tab")
        await expect(page.get_by_role("link", name="reference@1")).to_be_focused()
        await keys.press("Tab")
        await expect(page.get_by_label("Show runs named")).to_be_focused()
        await keys.type(HACKED_RUN)
        await keys.press("Tab")
        await expect(page.get_by_role("link", name=HACKED_RUN, exact=True)).to_be_focused()
        await keys.press("Enter")
        await expect(page.locator("h1")).to_have_text(HACKED_RUN)
        plot = page.locator("#scores .plot")
        await plot.focus()
        await keys.press("End")
        await expect(page.locator("#scores .readout")).to_contain_text("Step 196:")
        await keys.press("ArrowLeft")
        await expect(page.locator("#scores .readout")).to_contain_text("Step 192:")
        await keys.press("Home")
        await expect(page.locator("#scores .readout")).to_contain_text("Step 0:")
        await page.locator(".track button").last.focus()
        await keys.press("Enter")
        await expect(page.locator(".episodes details[open] summary")).to_be_focused()


# Neither the page nor a chart is wider than the window, once charts have been resized.
FITS = """width => {
    const canvases = [...document.querySelectorAll("canvas")];
    const boxes = canvases.map((canvas) => canvas.getBoundingClientRect());
    return document.documentElement.scrollWidth <= width
        && boxes.every((box) => box.right <= width && box.width > 100);
}"""

# Relative luminance and contrast as WCAG 2 defines them, of each text and its background.
CONTRASTS = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map((value) => value / 255)
        .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const background = (element) => {
        for (let parent = element; parent; parent = parent.parentElement) {
            const color = channels(getComputedStyle(parent).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
    };
    const hasText = (element) => [...element.childNodes]
        .some((node) => node.nodeType === 3 && node.textContent.trim());
    const texts = [...document.querySelectorAll("main *")]
        .filter((element) => element.checkVisibility() && hasText(element));
    return texts.map((element) => {
        const color = channels(getComputedStyle(element).color);
        const [a, b] = [luminance(color), luminance(background(element))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 120)];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
async def test_texts_have_enough_contrast_in_both_schemes(
    address: str, scheme: str, view: str
) -> None:
    async with visiting(address, color_scheme=scheme) as visit:
        await visit.go(view)
        contrasts = await visit.page.evaluate(CONTRASTS)
        assert len(contrasts) > 10
        assert [text for contrast, text in contrasts if contrast < 4.5] == []
        background = await visit.page.evaluate(
            "getComputedStyle(document.documentElement).background"
        )
        brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert (brightness > 128) == (scheme == "light")
        for width in (1280, 360):
            await visit.page.set_viewport_size({"width": width, "height": 800})
            await visit.page.wait_for_function(FITS, arg=width)


@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
async def test_axe_finds_no_accessibility_violation(address: str, view: str) -> None:
    script = BROWSER_FOLDER / "axe.min.js"
    if not script.exists():
        pytest.skip("no axe-core: `make .venv/browser` fetches it")
    async with visiting(address, bypass_csp=True) as visit:
        await visit.go(view)
        await visit.page.add_script_tag(content=script.read_text(encoding="utf-8"))
        report = await visit.page.evaluate("axe.run()")
        assert len(report["passes"]) > 10
        violations = [(rule["id"], rule["nodes"][0]["html"]) for rule in report["violations"]]
        assert violations == []


async def test_two_runs_are_compared_on_the_same_axes(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go(f"runs/{HACKED_RUN}")
        await visit.page.get_by_label("Compare with").select_option(label="team/sweep-07")
        await expect(visit.page.locator("h1")).to_have_text(f"{HACKED_RUN} and team/sweep-07")
        await expect(visit.page.locator("figure canvas")).to_have_count(8)
        row = visit.page.get_by_role("row", name=re.compile("^Health"))
        await expect(row.locator("td")).to_have_text(["critical", "ok"])
        await visit.page.locator("#series details.table summary").click()
        both = visit.page.get_by_role("table", name="Both runs by step")
        await expect(both.locator("thead th")).to_have_count(17)


async def test_a_closed_view_leaves_no_plots_behind(address: str) -> None:
    async with visiting(address) as visit:
        plots = 'uPlot.sync("steps").plots.length'
        await visit.go(f"runs/{HACKED_RUN}")
        assert await visit.page.evaluate(plots) == await visit.page.locator("figure").count() > 8
        await visit.page.get_by_role("navigation").get_by_role("link", name="Overview").click()
        await expect(visit.page.locator("table.runs tbody tr")).to_have_count(RUNS)
        assert await visit.page.evaluate(plots) == 0
        await expect(visit.page.locator("#live")).to_have_attribute("data-state", "idle")
