# SPDX-License-Identifier: Apache-2.0
"""Draws figures as an SVG of a fixed size, which reads on a light page as on a dark one.

    panel(title, unit, curves) -> one diagram: curves are {name: [(x, y), …]}, both axes begin at nothing
    picture(panels, below) -> the file's text: the diagrams beside each other, `below` is what x counts
"""

from xml.sax.saxutils import escape

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 44
COLOURS = ("#c2571a", "#3778bf", "#4a9a5b", "#8c6bb1", "#9a8c3c")
INK, GRID = "#7a7a7a", "#7a7a7a40"


def steps(most, wanted=5):
    """Round numbers from 0 up to at least `most`, about so many."""
    size = 10.0 ** len(str(int(most))) if most >= 1 else 1.0
    while most / size < wanted:
        for part in (2, 2.5, 2):
            if most / size >= wanted:
                break
            size /= part
    marks = [0.0]
    while marks[-1] < most:
        marks.append(marks[-1] + size)
    return marks


def number(value):
    return f"{value:g}" if value < 1e6 else f"{value / 1e6:g}M"


def text(x, y, words, anchor="middle", size=12, colour=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(words)}</text>'


def panel(title, unit, curves):
    """One diagram of WIDTH × HEIGHT, as lines of SVG."""
    points = [point for curve in curves.values() for point in curve]
    across, up = steps(max(x for x, _ in points)), steps(max(y for _, y in points))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x, y):
        return LEFT + wide * x / across[-1], TOP + high * (1 - y / up[-1])

    out = [text(LEFT, 18, f"{title}, {unit}", "start", 13)]
    for mark in up:
        x, y = at(0, mark)
        out.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="{GRID}"/>')
        out.append(text(x - 6, y + 4, number(mark), "end", 11))
    for mark in across:
        x, y = at(mark, 0)
        out.append(text(x, y + 16, number(mark), "middle", 11))
    for colour, (name, curve) in zip(COLOURS, curves.items()):
        line = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in curve)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = at(*curve[-1])
        anchor, x = ("end", x - 4) if x > LEFT + wide / 2 else ("start", x + 4)
        out.append(text(x, max(y - 7, TOP + 8), name, anchor, 12, colour))
    return out


def picture(panels, below):
    """All of them, from left to right."""
    width = WIDTH * len(panels)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif">']
    for place, lines in enumerate(panels):
        out += [f'<g transform="translate({place * WIDTH} 0)">', *lines]
        out += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, below), "</g>"]
    return "\n".join([*out, "</svg>", ""])
