"""The plot: rates as shares of the limit, one bar for each system, as plain SVG."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from benchmarks.summary import Summary

COLOURS: Mapping[str, str] = {
    "assay": "#1f6f5c",
    "naive": "#b0b7c3",
    "infinity": "#d08c2f",
    "litserve": "#7a5ea8",
    "mosec": "#4a7fb5",
    "vllm": "#b8544f",
}
BAR, GAP, LEFT, WIDTH, TOP, BOTTOM = 11, 12, 130, 560, 58, 40


def draw_shares(summaries: Sequence[Summary], titles: Mapping[str, str]) -> str:
    """Draw a bar for every summary that has a share of the limit, by scenario."""
    shown = [row for row in summaries if row.share is not None and row.system in COLOURS]
    highest = max([1.0, *(row.share or 0.0 for row in shown)]) * 1.12
    scale = WIDTH / highest
    parts, y = [], float(TOP)
    for scenario in dict.fromkeys(row.scenario for row in shown):
        rows = [row for row in shown if row.scenario == scenario]
        middle = y + len(rows) * BAR / 2 + 4
        parts.append(_text(LEFT - 10, middle, scenario, 'text-anchor="end"'))
        for row in rows:
            parts += _bar(row, y, scale)
            y += BAR
        y += GAP
    parts = _axis(highest, scale, y) + parts  # the lines behind the bars
    systems = {row.system for row in shown}
    parts += _legend([name for name in COLOURS if name in systems], titles)
    height = y + BOTTOM
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 30} {height:.0f}" '
        'font-family="sans-serif" font-size="11" fill="#333" role="img">'
        "<title>Items a second as a share of the limit</title>"
        '<rect width="100%" height="100%" fill="#fff"/>'
    )
    return head + "\n".join(parts) + "</svg>\n"


def _bar(row: Summary, y: float, scale: float) -> list[str]:
    share = row.share or 0.0
    width, colour = share * scale, COLOURS[row.system]
    bar = f'<rect x="{LEFT}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>'
    return [bar, _text(LEFT + width + 4, y + BAR - 3, f"{share:.2f}", 'font-size="9"')]


def _axis(highest: float, scale: float, bottom: float) -> list[str]:
    parts = []
    for step in range(int(highest / 0.25) + 1):
        at, x = step * 0.25, LEFT + step * 0.25 * scale
        colour, dash = ("#333", "4 3") if at == 1.0 else ("#ddd", "")
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom:.1f}" '
            f'stroke="{colour}" stroke-dasharray="{dash}"/>'
        )
        parts.append(_text(x, bottom + 14, f"{at:g}", 'text-anchor="middle"'))
    title = "items a second over those of plain Transformers in a bare loop"
    parts.append(_text(LEFT, bottom + 30, title, ""))
    return parts


def _legend(systems: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    parts, x = [], float(LEFT)
    for name in systems:
        parts.append(f'<rect x="{x:.0f}" y="18" width="10" height="10" fill="{COLOURS[name]}"/>')
        parts.append(_text(x + 14, 27, titles[name], ""))
        x += 26 + 7 * len(titles[name])
    return parts


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'
