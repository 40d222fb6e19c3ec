#!/usr/bin/env python3
"""grid_plot.py NOTE > SVG: draws the first table of NOTE that bench/grid.py made, one panel for each kind of model.

Speed over file / memory, Hypura against llama.cpp, on a logarithmic axis; the number at a point of Hypura's is how many times
llama.cpp's speed that is. The note is the only source of figures.
"""
import math
import sys

PANEL_W, PANEL_H, LEFT, TOP, GAP = 205, 210, 48, 58, 22
COLOURS = {"Hypura": "#2563a8", "llama.cpp": "#b4542c"}
AXIS_TOK_S = (1, 3, 10, 30, 100)


def rows_of(path):
    """[(kind, [(file over memory, Hypura's tok/s, llama.cpp's, times)])], in the table's order."""
    kinds, inside = [], False
    for line in open(path, encoding="utf-8"):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[:2] == ["model", "file / memory"] and "decode tok/s" in cells:
            inside, at = True, cells.index("decode tok/s")
        elif inside and not line.startswith("|"):
            break
        elif inside and not cells[0].startswith("---"):
            if cells[0]:
                kinds.append((cells[0], []))
            kinds[-1][1].append((float(cells[1]), *map(float, cells[at:at + 3])))
    if not kinds:
        sys.exit("%s: no table of bench/grid.py in it" % path)
    return kinds


def y_of(tok_s):
    low, high = math.log(AXIS_TOK_S[0]), math.log(AXIS_TOK_S[-1])
    return TOP + PANEL_H * (high - math.log(tok_s)) / (high - low)


def panel(kind, points, left, first):
    out = ['<text x="%d" y="%d" font-weight="bold">%s</text>' % (left, TOP - 14, kind)]
    for tok_s in AXIS_TOK_S:
        out.append('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/>' % (left, y_of(tok_s), left + PANEL_W, y_of(tok_s)))
        if first:
            out.append('<text x="%d" y="%.1f" text-anchor="end" fill="#555">%d</text>' % (left - 6, y_of(tok_s) + 4, tok_s))
    xs = [left + PANEL_W * (i + 0.5) / len(points) for i in range(len(points))]
    held = sum(1 for point in points if point[0] < 1)
    edge = left + PANEL_W * held / len(points)
    out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#999" stroke-dasharray="3 3"/>' % (edge, TOP, edge, TOP + PANEL_H))
    for x, point in zip(xs, points):
        out.append('<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g</text>' % (x, TOP + PANEL_H + 16, point[0]))
    for which, name in ((2, "llama.cpp"), (1, "Hypura")):
        path = " ".join("%.1f,%.1f" % (x, y_of(point[which])) for x, point in zip(xs, points))
        out.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>' % (path, COLOURS[name]))
        for x, point in zip(xs, points):
            out.append('<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s: %g tokens/s</title></circle>'
                       % (x, y_of(point[which]), COLOURS[name], name, point[which]))
    for x, (size, ours, _, times) in zip(xs, points):
        if size > 1:
            out.append('<text x="%.1f" y="%.1f" text-anchor="middle" fill="%s">%.1fx</text>'
                       % (x + 8, y_of(ours) - 9, COLOURS["Hypura"], times))
    return out


def draw(kinds):
    width = LEFT + len(kinds) * (PANEL_W + GAP)
    height = TOP + PANEL_H + 44
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">' % (width, height),
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="%d" y="20">Tokens a second while decoding:</text>' % LEFT]
    at = LEFT + 215
    for name, colour in COLOURS.items():
        out.append('<circle cx="%d" cy="16" r="4" fill="%s"/><text x="%d" y="20">%s</text>' % (at, colour, at + 10, name))
        at += 90
    for i, (kind, points) in enumerate(kinds):
        out += panel(kind, points, LEFT + i * (PANEL_W + GAP), i == 0)
    out.append('<text x="%d" y="%d" fill="#555">file / memory: right of the dashed line the model is larger than the memory '
               'that it may take</text>' % (LEFT, height - 8))
    return "\n".join(out + ["</svg>", ""])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    sys.stdout.write(draw(rows_of(sys.argv[1])))
