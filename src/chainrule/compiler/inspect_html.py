"""An inspection as one page: bars of time, the table, the graph, the code. No scripts, no links."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from chainrule.compiler.show import memory_svg

if TYPE_CHECKING:
    from chainrule.compiler.inspect import Inspection, Profile, Row

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em }
h2 { font-size: 1.15em; margin: 1.6em 0 .4em }
pre { font: 12px/1.4 ui-monospace, monospace; overflow: auto; max-height: 40em; padding: .6em;
      border: 1px solid #8886 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .1em .7em; text-align: right } td.text, th.text { text-align: left }
tr:nth-child(even) { background: #8881 }
.lane { position: relative; height: 26px; margin: 2px 0; background: #8881 }
.lane div { position: absolute; top: 0; height: 24px; overflow: hidden; white-space: nowrap;
            font-size: 11px; line-height: 24px; box-sizing: border-box; color: #000;
            border-left: 1px solid #fff }
summary { cursor: pointer; font-weight: 600; margin: .6em 0 }
"""


def page(inspection: Inspection) -> str:
    title = escape(inspection.graph.name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"</head><body>\n{fragment(inspection)}\n</body></html>\n"
    )


def fragment(inspection: Inspection) -> str:
    """The page's content, for notebooks too."""
    profile = inspection.profile
    parts = [
        f"<style>{STYLE}</style>",
        f"<h1>{escape(inspection.graph.name)}</h1>",
        *[f"<p>{escape(line)}</p>" for line in str(inspection).splitlines()[:3]],
        "<h2>Where the time goes</h2>",
        "<p>All threads' time together: families, and the kernels in them.</p>",
        flame(profile),
        "<h2>When</h2>",
        "<p>One run from left to right, a line for each thread; a bar is a kernel.</p>",
        timeline(profile),
        "<h2>Kernels</h2>",
        table(profile),
        "<h2>Memory</h2>",
        memory_svg(inspection.plan),
        *_texts(inspection),
    ]
    return "\n".join(parts)


def _texts(inspection: Inspection) -> Iterator[str]:
    for name, text in (
        ("The graph as it was traced", str(inspection.graph)),
        ("The graph after all passes", str(inspection.simplified)),
        ("Kernels and memory", inspection.kernels),
        ("Graph and kernels for Graphviz", inspection.dot),
        ("LLVM IR", inspection.llvm),
        ("Assembly", inspection.assembly),
    ):
        yield f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>"


def colour(family: str) -> str:
    """A light colour that is always the same for a name."""
    hue = sum(ord(c) * (i + 3) for i, c in enumerate(family)) * 0.37 % 1.0
    red, green, blue = (int(255 * x) for x in colorsys.hls_to_rgb(hue, 0.78, 0.6))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _bar(left: float, width: float, family: str, text: str, title: str) -> str:
    shown = escape(text) if width > 0.02 else ""
    return (
        f'<div style="left:{100 * left:.3f}%;width:{100 * width:.3f}%;background:{colour(family)}" '
        f'title="{escape(title)}">{shown}</div>'
    )


def _lane(bars: list[str]) -> str:
    return f'<div class="lane">{"".join(bars)}</div>'


def _told(row: Row) -> str:
    return f"kernel {row.number}, {row.family}: {row.name}: {row.work * 1e6:.1f} us"


def flame(profile: Profile) -> str:
    """Three lines of bars, as wide as their time: all, families, kernels."""
    work = sum(row.work for row in profile.rows) or 1e-12
    families: dict[str, list[Row]] = {}
    for row in profile.rows:
        families.setdefault(row.family, []).append(row)
    order = sorted(families.items(), key=lambda item: -sum(row.work for row in item[1]))
    upper, lower, at = [], [], 0.0
    for family, rows in order:
        width = sum(row.work for row in rows) / work
        told = f"{family}: {width * work * 1e6:.1f} us, {width:.1%}, {len(rows)} kernels"
        upper.append(_bar(at, width, family, family, told))
        start = at
        for row in sorted(rows, key=lambda row: -row.work):
            lower.append(_bar(start, row.work / work, family, row.name, _told(row)))
            start += row.work / work
        at += width
    whole = _bar(0.0, 1.0, "", "all kernels", f"{work * 1e6:.1f} us of all threads together")
    return _lane([whole]) + _lane(upper) + _lane(lower)


def timeline(profile: Profile) -> str:
    """A line for each thread that worked, with its kernels where and while it ran them."""
    end = max((row.start + row.wall for row in profile.rows), default=0.0) or 1e-12
    lanes = []
    for thread in range(max((len(row.spans) for row in profile.rows), default=0)):
        bars = []
        for row in profile.rows:
            span = row.spans[thread]
            if span is not None:
                bars.append(
                    _bar(span[0] / end, (span[1] - span[0]) / end, row.family, row.name, _told(row))
                )
        if bars:
            lanes.append(_lane(bars))
    return "".join(lanes)


def table(profile: Profile) -> str:
    work = sum(row.work for row in profile.rows) or 1e-12
    names = ("kernel", "phase", "time us", "share", "chunks", "GFLOP/s", "of peak", "GB/s")
    head = "".join(f"<th>{name}</th>" for name in (*names, "of peak"))
    lines = [f'<tr>{head}<th class="text">family</th><th class="text">what</th></tr>']
    for row in sorted(profile.rows, key=lambda row: -row.work):
        flops, traffic = profile.shares(row)
        numbers = (
            str(row.number), str(row.phase), f"{row.work * 1e6:.1f}", f"{row.work / work:.1%}",
            str(row.chunks), f"{row.flops / max(row.work, 1e-12) / 1e9:.1f}", f"{flops:.1%}",
            f"{row.bytes / max(row.wall, 1e-12) / 1e9:.1f}", f"{traffic:.1%}",
        )  # fmt: skip
        cells = "".join(f"<td>{x}</td>" for x in numbers)
        words = "".join(f'<td class="text">{escape(x)}</td>' for x in (row.family, row.name))
        lines.append(f"<tr>{cells}{words}</tr>")
    return f"<table>{''.join(lines)}</table>"
