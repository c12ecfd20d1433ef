# SPDX-License-Identifier: MIT
"""From figures to docs/benchmarks.md and docs/images/benchmarks.svg. Nothing is measured here."""

import os
from xml.sax.saxutils import escape

from goals import judge, number, verdict

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCS = os.path.join(ROOT, "docs", "benchmarks.md")
QUIET = 0.5  # load average at the start of a run up to which nothing else ran
CHART = os.path.join(ROOT, "docs", "images", "benchmarks.svg")

HEAD = """\
# Benchmarks

Made by `./dev bench` on {date}; do not edit by hand. {cpus} CPUs ({cpu}), Linux {kernel}, everything in network namespaces of one
machine. Each figure is the median of {rounds} rounds, with the smallest and the largest in brackets; in a round all contenders are measured one
after the other, {seconds:g} s each, and ratios are made round by round. The rows *first*, *stale* and *memory* are one run each, since they count;
*scale* has {scale}. **Look at ratios first:** the absolute numbers are those of this machine, and below some 5 % (connections: 10 %) a difference
means nothing. {quiet}
Goals are numbers of another, quicker machine; in brackets is what they were there as a ratio to a peer in the same run. *as a ratio*: that was
reached, the number was not. Where a goal is missed, [performance.md](performance.md) says what takes the time and what was tried.

![Chart of the main figures](images/benchmarks.svg)

## Goals

"""
QUIET_TEXT = {True: "The machine was quiet (load average {:.1f} at the start).",
              False: "**The machine was not quiet** (load average {:.1f} at the start): absolute numbers are too low, ratios rough."}
FOOT = """
## How to repeat

```console
# ./dev bench                 all of it, and this page (as root, Debian 12 or 13, two CPUs)
# ./dev bench --quick         in a few minutes, without this page
# ./dev bench cold forward    some rows: {rows}
```

It installs the contenders from Debian's packages, starts none of their services, builds Sluice with the options of its image and the load
generators (`tests/bench/*.c`), and works in network namespaces of its own, which are gone afterwards. Figures are in `build/bench.json`; `./dev bench --docs` makes this page from them again.
Nothing else should run on the machine meanwhile. The name server, the TCP and UDP servers and the load generators are the same for all contenders.
The name server is one of our own that makes its answers up, so that it is not what limits; a name's address is known, and each answer is compared
with it.

## Versions

{versions}

## What is not measured

- A flowtable: the kernel here has none, so its row is unverified.
- Network cards, and more than two CPUs: packets cross veth pairs, and the sender's CPU does most of the work on the way.
- IPv6, DNS over TCP and over TLS, and upstream servers far away, where their latency is all that counts.
- Networks with virtual addresses, audit mode, and `log_allowed`.
- UDP through proxies; TCP without offload (veth pairs make it a test of themselves).
- Docker's bridge and its rules, which every packet of a container also meets, whatever the gateway is.
"""


# --- text ---

def spread(values):
    """Median (smallest..largest)"""
    if not values:
        return "-"
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return f"{number(middle)} ({number(ordered[0])}..{number(ordered[-1])})" if len(values) > 1 else number(middle)


def table(header, lines):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *lines]) + "\n"


def ratio_cell(row, who, measure):
    ratio = row.ratio(who, row.base, measure["key"]) if row.base and row.base in row.values else None
    return f"{ratio:.2f}" if ratio is not None else "-"


def row_table(row):
    """With a ratio in front of each measure, where the row has a base."""
    header = [""]
    for measure in row.measures:
        title = f"{measure['title']}{', ' + measure['unit'] if measure['unit'] else ''}"
        header += ["ratio", title] if row.base else [title]
    lines = []
    for who in row.values:
        cells = [who]
        for measure in row.measures:
            text = spread(row.get(who, measure["key"]))
            cells += [ratio_cell(row, who, measure), text] if row.base else [text]
        lines.append(cells)
    return table(header, lines)


def row_text(row):
    parts = [f"### {row.title}\n", row.how + (f" Ratios are to *{row.base}*." if row.base else "") + "\n", row_table(row)]
    if row.facts:
        parts.append("\n".join(f"- {what}: {value}" for what, value in row.facts) + "\n")
    if row.notes:
        parts.append("\n".join(f"- Not measured: {note}." for note in row.notes) + "\n")
    return "\n".join(parts)


def goals_text(rows):
    lines = [[goal.what, goal.ratio, goal.value or "-", goal.goal, verdict(goal)] for goal in judge(rows)]
    return table(["", "ratio", "measured", "goal", "reached"], lines)


def page(about, rows):
    versions = table(["", ""], [[name, version] for name, version in about["versions"].items()])
    head = HEAD.format(date=about["date"], cpus=about["cpus"], cpu=about["cpu"], kernel=about["versions"]["Linux"], rounds=about["rounds"],
                       scale=f"{max(about['rounds'] // 2, 1)}", seconds=about["seconds"], quiet=QUIET_TEXT[about["load"] <= QUIET].format(about["load"]))
    middle = goals_text(rows) + "\n## Rows\n\n" + "\n".join(row_text(row) for row in rows.values())
    return head + middle + FOOT.format(rows=" ".join(rows), versions=versions)


# --- chart ---

WIDTH, LEFT, BAR, GAP, PANEL_GAP, TITLE = 760, 210, 18, 6, 26, 24
BARS = 400  # width of the longest bar
STYLE = """
    svg { color-scheme: light dark; }
    .page { fill: #ffffff; } .ours { fill: #0b6e99; } .other { fill: #b9c0c7; }
    .title { fill: #1f2328; font: 600 14px sans-serif; } .text { fill: #1f2328; font: 12px sans-serif; }
    .mark { stroke: #b35900; stroke-width: 1.5; stroke-dasharray: 4 3; } .goal { fill: #b35900; font: 11px sans-serif; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; } .title, .text { fill: #e6edf3; } .ours { fill: #4ab8e8; } .other { fill: #545d68; }
      .mark { stroke: #f0a050; } .goal { fill: #f0a050; }
    }
"""

# row, measure, title, who, goal: None, or where the mark is
PANELS = (
    ("cold", "qps", "Cold unique names: answers per second, more is better", None, 110000),
    ("cold", "cpu", "Cold unique names: CPU time per question, us, less is better", None, 8),
    ("cached", "qps", "Cached names: answers per second, more is better", None, 250000),
    ("latency", "added", "Added latency of a cold name, us, less is better", None, 14),
    ("forward", "tcp", "One TCP stream: Gbit/s, more is better", None, None),
    ("forward", "cps", "Connections per second, more is better", None, None),
    ("flood", "cps", "Connections per second under 300,000 denied packets per second", None, None),
)


def panel(top, title, bars, goal):
    """Return: SVG, and where it ends."""
    largest = max([value for _, value in bars] + [goal or 0])
    parts = [f'<text class="title" x="16" y="{top + 14}">{escape(title)}</text>']
    y = top + TITLE
    for who, value in bars:
        width = max(value / largest * BARS, 1)
        kind = "ours" if who.startswith("sluice") else "other"
        parts.append(f'<text class="text" x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(who)}</text>'
                     f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>'
                     f'<text class="text" x="{LEFT + width + 6:.1f}" y="{y + 13}">{number(value)}</text>')
        y += BAR + GAP
    if goal:
        x = LEFT + goal / largest * BARS
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top + TITLE - 3}" y2="{y - GAP + 3}"/>'
                     f'<text class="goal" x="{WIDTH - 16}" y="{top + 14}" text-anchor="end">goal: {number(goal)}</text>')
    return "\n".join(parts), y + PANEL_GAP - GAP


def chart(rows):
    parts, top = [], 16
    for key, measure, title, who, goal in PANELS:
        if key not in rows:
            continue
        row = rows[key]
        bars = [(one, row.median(one, measure)) for one in who or row.values if row.median(one, measure)]
        if not bars:
            continue
        text, top = panel(top, title, bars, goal)
        parts.append(text)
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img" '
            'aria-label="Benchmarks of Sluice and its peers">\n'
            f"<style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{top}\"/>\n{body}\n</svg>\n")


def write_docs(about, rows):
    for path, text in ((DOCS, page(about, rows)), (CHART, chart(rows))):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
