#!/usr/bin/env python3
"""timeline.py FILE [SVG]: draws what `hypura bench --timeline FILE` wrote, one row for each millisecond of a token.

Above the line is what the host did, by layer: handed a piece to the GPU's backend, handed it over again because experts were
missing, looked experts up (and handed over uploads), waited for the ids that a router had selected. The rest of a row is
libllama's: the graph's input, the part before the first selection, the output.
"""
import sys

WIDTH, ROW, LEFT, TOP = 1000, 46, 60, 44
COLOURS = {"hand-over": "#4878a8", "repeat": "#c85a3c", "present": "#7a9a4c", "foresee": "#b08a3a", "compute": "#8a5aa8", "wait": "#d8d8d8"}
NAMES = {"hand-over": "hands a piece over", "repeat": "again, experts were missing", "present": "looks up, uploads",
         "compute": "computes what is missing",
         "foresee": "asks a router ahead, uploads",
         "wait": "waits for ids"}


def read(path):
    with open(path, encoding="ascii") as lines:
        return [(work, int(layer), int(begin), int(end)) for work, layer, begin, end in map(str.split, lines)]


def pieces_of(begin, end):
    """The stretch cut where a row ends: (row, from, to)."""
    while begin < end:
        row = begin // WIDTH
        cut = min(end, (row + 1) * WIDTH)
        yield row, begin - row * WIDTH, cut - row * WIDTH
        begin = cut


def draw(spans):
    n_rows = max(end for _, _, _, end in spans) // WIDTH + 1
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">'
           % (LEFT + WIDTH + 20, TOP + n_rows * ROW + 10), '<rect width="100%" height="100%" fill="white"/>']
    at = LEFT
    for work, name in NAMES.items():
        total = sum(end - begin for w, _, begin, end in spans if w == work)
        out.append('<rect x="%d" y="12" width="12" height="12" fill="%s"/><text x="%d" y="22">%s: %d us</text>'
                   % (at, COLOURS[work], at + 17, name, total))
        at += 200
    for row in range(n_rows):
        y = TOP + row * ROW + 26
        out.append('<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#888"/><text x="%d" y="%d" text-anchor="end">%d ms</text>'
                   % (LEFT, y, LEFT + WIDTH, y, LEFT - 8, y, row))
    labelled = set()
    for work, layer, begin, end in spans:
        for row, left, right in pieces_of(begin, end):
            y = TOP + row * ROW
            out.append('<rect x="%d" y="%d" width="%d" height="22" fill="%s"><title>%s, layer %d: %d us</title></rect>'
                       % (LEFT + left, y + 4, max(right - left, 1), COLOURS[work], NAMES[work], layer, end - begin))
            if work == "hand-over" and layer not in labelled:
                labelled.add(layer)
                out.append('<text x="%d" y="%d" fill="#555">%d</text>' % (LEFT + left, y + 38, layer))
    return "\n".join(out + ["</svg>", ""])


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    picture = draw(read(sys.argv[1]))
    if len(sys.argv) == 3:
        with open(sys.argv[2], "w", encoding="ascii") as file:
            file.write(picture)
    else:
        sys.stdout.write(picture)


if __name__ == "__main__":
    main()
