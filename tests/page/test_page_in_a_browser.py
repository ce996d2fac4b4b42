"""The page in a real Chromium: what it shows, what it asks for, by keyboard, in both schemes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import expect
from support.servers import listening

from assay.settings import Settings

from .browser import FETCHED, Visit, needs_browser, visiting
from .recorded import SICK, record

pytestmark = needs_browser

RUNS = 50
# A visit to a room asks for the page's files once, and for little more.
FILES, MOST_ANSWERS, MOST_BYTES = 21, 8, 400_000
ROOMS = {
    "overview": "",
    "run": f"runs/{SICK}",
    "healthy run": "runs/team%2Fsweep-01",
    "model": "models/reference%401",
    "comparison": f"compare/{SICK}/team%2Fsweep-01",
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


async def test_fifty_runs_are_listed_with_few_questions(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go()
        rows = visit.page.locator("table.runs tbody tr:visible")
        await expect(rows).to_have_count(RUNS)
        await expect(visit.page.locator("article.card h3")).to_contain_text("reference@1")
        await visit.page.get_by_label("Show runs named").fill("SWEEP-1")
        await expect(rows).to_have_count(10)
        await expect(visit.page.locator(".found")).to_have_text("10 of 50 runs")
        assert sorted(one for one in visit.paths() if "page/" not in one and one != "/") == [
            "/metrics",
            "/v1/models",
            "/v1/runs",
        ]
        await weighed(visit)


async def test_a_run_is_drawn_from_few_answers(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go(f"runs/{SICK}")
        await expect(visit.page.locator("h1")).to_have_text(SICK)
        await expect(visit.page.locator(".facts .status")).to_have_text("critical")
        await expect(visit.page.locator("#alerts article")).to_have_count(4)
        await expect(visit.page.locator(".track button")).to_have_count(3)
        await expect(visit.page.locator("#live")).to_have_attribute("data-state", "live")
        assert await painted(visit, "#scores canvas") > 0.2
        for figure in await visit.page.locator("figure").all():
            await expect(figure.locator("canvas")).to_have_count(1)
        await weighed(visit)


async def weighed(visit: Visit) -> None:
    """Few requests, few bytes."""
    assert len(visit.asked) <= FILES + MOST_ANSWERS, visit.paths()
    answers = [await one.response() for one in visit.asked if "events" not in one.url]
    sizes = [int(answer.headers["content-length"]) for answer in answers if answer is not None]
    assert sum(sizes) <= MOST_BYTES


async def painted(visit: Visit, canvas: str) -> float:
    """The share of a canvas that is not empty."""
    script = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let seen = 0;
        for (let place = 3; place < data.length; place += 4) seen += data[place] > 0;
        return seen / (data.length / 4);
    }"""
    return float(await visit.page.locator(canvas).evaluate(script))


async def test_a_rule_tells_what_it_rested_on(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go(f"runs/{SICK}")
        await visit.page.locator(".track button").first.click()
        opened = visit.page.locator(".episodes details[open]")
        await expect(opened).to_have_count(1)
        await expect(opened.locator("summary")).to_be_focused()
        await expect(opened).to_contain_text("fired at step")
        await expect(opened).to_contain_text("the threshold is")
        await expect(opened.locator("dt").first).to_be_visible()
        await expect(opened).to_contain_text("It cannot tell")


async def test_every_drawing_has_its_numbers(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go(f"runs/{SICK}")
        await visit.page.locator("#scores summary").click()
        table = visit.page.get_by_role("table", name="Scores by step")
        await expect(table.locator("tbody tr")).to_have_count(50)
        await visit.page.locator("#rules details.table summary").click()
        fired = visit.page.get_by_role("table", name="When rules fired")
        await expect(fired.locator("tbody tr")).to_have_count(3)
        for section, name, columns in (
            ("channels", "Channels by step", 4),
            ("items", "Items by step", 6),
            ("telemetry", "Told by step", 3),
        ):
            await visit.page.locator(f"#{section} details.table summary").click()
            told = visit.page.get_by_role("table", name=name)
            await expect(told.locator("thead th")).to_have_count(columns)
            await expect(told.locator("tbody tr")).to_have_count(50)
        gold = visit.page.get_by_role("table", name="Measured against unit-tests")
        await expect(gold.locator("tbody tr")).to_have_count(5)
        for kind in ("Worst", "Best"):
            groups = visit.page.get_by_role("table", name=re.compile(f"^{kind}"))
            assert await groups.locator("tbody code").first.inner_text()


async def test_the_whole_way_by_keyboard(address: str) -> None:
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
        await keys.type(SICK)
        await keys.press("Tab")
        await expect(page.get_by_role("link", name=SICK, exact=True)).to_be_focused()
        await keys.press("Enter")
        await expect(page.locator("h1")).to_have_text(SICK)
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


# Neither the page nor a drawing is wider than the window, once drawings have followed it.
FITS = """width => {
    const canvases = [...document.querySelectorAll("canvas")];
    const boxes = canvases.map((one) => one.getBoundingClientRect());
    return document.documentElement.scrollWidth <= width
        && boxes.every((box) => box.right <= width && box.width > 100);
}"""

# Relative luminance and contrast as WCAG 2 defines them, of each text and what is behind it.
CONTRASTS = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
        .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
        .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const color = channels(getComputedStyle(one).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
    };
    const texts = [...document.querySelectorAll("main *")].filter((one) => one.checkVisibility()
        && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
    return texts.map((one) => {
        const [a, b] = [light(channels(getComputedStyle(one).color)), light(ground(one))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 120)];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("room", ROOMS.values(), ids=list(ROOMS))
async def test_texts_can_be_read_in_both_schemes(address: str, scheme: str, room: str) -> None:
    async with visiting(address, color_scheme=scheme) as visit:
        await visit.go(room)
        found = await visit.page.evaluate(CONTRASTS)
        assert len(found) > 10
        assert [text for contrast, text in found if contrast < 4.5] == []
        ground = await visit.page.evaluate("getComputedStyle(document.documentElement).background")
        brightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
        assert (brightness > 128) == (scheme == "light")
        for width in (1280, 360):
            await visit.page.set_viewport_size({"width": width, "height": 800})
            await visit.page.wait_for_function(FITS, arg=width)


@pytest.mark.parametrize("room", ROOMS.values(), ids=list(ROOMS))
async def test_a_reader_of_screens_stumbles_over_nothing(address: str, room: str) -> None:
    script = FETCHED / "axe.min.js"
    if not script.exists():
        pytest.skip("no axe-core: `make .venv/browser` fetches it")
    async with visiting(address, bypass_csp=True) as visit:
        await visit.go(room)
        await visit.page.add_script_tag(content=script.read_text(encoding="utf-8"))
        told = await visit.page.evaluate("axe.run()")
        assert len(told["passes"]) > 10
        assert [(one["id"], one["nodes"][0]["html"]) for one in told["violations"]] == []


async def test_two_runs_stand_side_by_side(address: str) -> None:
    async with visiting(address) as visit:
        await visit.go(f"runs/{SICK}")
        await visit.page.get_by_label("Compare with").select_option(label="team/sweep-07")
        await expect(visit.page.locator("h1")).to_have_text(f"{SICK} and team/sweep-07")
        await expect(visit.page.locator("figure canvas")).to_have_count(8)
        row = visit.page.get_by_role("row", name=re.compile("^Health"))
        await expect(row.locator("td")).to_have_text(["critical", "ok"])
        await visit.page.locator("#series details.table summary").click()
        both = visit.page.get_by_role("table", name="Both runs by step")
        await expect(both.locator("thead th")).to_have_count(17)


async def test_a_room_that_is_left_leaves_nothing_behind(address: str) -> None:
    async with visiting(address) as visit:
        plots = 'uPlot.sync("steps").plots.length'
        await visit.go(f"runs/{SICK}")
        assert await visit.page.evaluate(plots) == await visit.page.locator("figure").count() > 8
        await visit.page.get_by_role("navigation").get_by_role("link", name="Overview").click()
        await expect(visit.page.locator("table.runs tbody tr")).to_have_count(RUNS)
        assert await visit.page.evaluate(plots) == 0
        await expect(visit.page.locator("#live")).to_have_attribute("data-state", "idle")
