"""Bars as SVG: no library, a few KB each."""
import os
from xml.sax.saxutils import escape

WIDTH, LEFT, BAR, GAP = 760, 260, 18, 8
OURS, THEIRS, GROUND = "#2f6f9f", "#b0b6bc", "#e8ecef"


def bars(title, unit, rows):
    """`rows`: name, value, lowest, highest, ours, limit or None."""
    height = 44 + len(rows) * (BAR + GAP)
    most = max(max(high, limit or 0) for _, _, _, high, _, limit in rows) or 1
    x = lambda value: LEFT + value / most * (WIDTH - LEFT - 90)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{height}" fill="white"/><text x="8" y="20" font-size="14">{escape(title)}</text>']
    for number, (name, value, low, high, ours, limit) in enumerate(rows):
        y = 34 + number * (BAR + GAP)
        if limit:
            out.append(f'<rect x="{LEFT}" y="{y}" width="{x(limit) - LEFT:.1f}" height="{BAR}" fill="{GROUND}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
                   f'<rect x="{LEFT}" y="{y}" width="{x(value) - LEFT:.1f}" height="{BAR}" fill="{OURS if ours else THEIRS}"/>'
                   f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + BAR / 2}" y2="{y + BAR / 2}" stroke="black"/>'
                   f'<text x="{x(max(high, limit or 0)) + 6:.1f}" y="{y + 13}">{value:,.0f} {escape(unit)}</text>')
    return "\n".join(out) + "\n</svg>\n"


def draw(modes, folder):
    """Rates, small mails and large; what the limit allows lies behind. Gives names and titles."""
    os.makedirs(folder, exist_ok=True)
    made = []
    for name, title, large in (("small.svg", "Mails of 4 KB a second; behind: what primitives and loopback allow; line: spread", False),
                               ("large.svg", "Mails of 1 MB a second; behind: what primitives and loopback allow; line: spread", True)):
        rows = [(one["mode"], one["rate"], min(one["rates"]), max(one["rates"]), bool(one.get("counted")), one["limit"])
                for one in modes if ("1 MB" in one["mode"]) == large and not one["name"].startswith("direct")]
        if rows:
            with open(os.path.join(folder, name), "w") as out:
                out.write(bars(title, "/s", rows))
            made.append((name, title))
    return made
