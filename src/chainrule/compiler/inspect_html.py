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
.inspection { font: 14px/1.45 system-ui, sans-serif; max-width: 1400px; margin: 0 auto }
.inspection h2 { font-size: 1.15em; margin: 1.6em 0 .4em }
.inspection pre { font: 12px/1.4 ui-monospace, monospace; overflow: auto; max-height: 40em;
                  padding: .6em; border: 1px solid #8886 }
.inspection .wide { overflow-x: auto }
.inspection table { border-collapse: collapse; font-variant-numeric: tabular-nums;
                    white-space: nowrap }
.inspection th, .inspection td { padding: .1em .7em; text-align: right }
.inspection td.text, .inspection th.text { text-align: left }
.inspection td.text { white-space: normal; min-width: 6em }
.inspection tr:nth-child(even) { background: #8881 }
.inspection .lane { position: relative; height: 26px; margin: 2px 0; background: #8881 }
.inspection .lane div { position: absolute; top: 0; height: 24px; overflow: hidden;
                        white-space: nowrap; font-size: 11px; line-height: 24px;
                        box-sizing: border-box; color: #000; border-left: 1px solid Canvas }
.inspection summary { cursor: pointer; font-weight: 600; margin: .4em 0 }
.inspection details details { margin-left: 1em }
.inspection details details summary { font-weight: 400 }
"""
PAGE = """
:root { color-scheme: light dark }
body { margin: 1.5em 1em }
"""


def page(inspection: Inspection) -> str:
    title = escape(inspection.graph.name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{PAGE}</style></head><body>\n{fragment(inspection)}\n</body></html>\n"
    )


def fragment(inspection: Inspection) -> str:
    """The page's content, for notebooks too."""
    profile = inspection.profile
    parts = [
        f'<style>{STYLE}</style>\n<div class="inspection">',
        f"<h1>{escape(inspection.graph.name)}</h1>",
        *[f"<p>{escape(line)}</p>" for line in str(inspection).splitlines()[:3]],
        "<h2>Where the time goes</h2>",
        "<p>All threads' time together: families, and the kernels in them.</p>",
        flame(profile),
        "<h2>When</h2>",
        "<p>One run from left to right, a line for each thread; a bar is a kernel.</p>",
        timeline(profile),
        "<h2>Kernels</h2>",
        f"<p>{escape(explained())}</p>",
        table(profile, len(inspection.program.tables.kernels)),
        "<h2>Memory</h2>",
        memory_svg(inspection.plan),
        "<h2>From the graph to the processor</h2>",
        *_texts(inspection),
        "<h2>The code of each kernel</h2>",
        "<p>Its operations with the layer and the line they come from, its code, and the functions "
        "it calls.</p>",
        *_kernels(inspection),
        "<h2>Functions that kernels call</h2>",
        *_functions(inspection),
        "</div>",
    ]
    return "\n".join(parts)


def explained() -> str:
    from chainrule.compiler.inspect import EXPLAINED

    return EXPLAINED.replace("\n", " ")


def _folded(summary: str, *inside: str, id: str = "") -> str:
    """Something that opens on a click; `id` is inside, so that a link to it opens it."""
    mark = f'<div id="{id}"></div>' if id else ""
    content = "".join(inside)
    return f"<details><summary>{summary}</summary>{mark}{content}</details>"


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _texts(inspection: Inspection) -> Iterator[str]:
    for name, text in (
        ("The graph as it was traced", str(inspection.graph)),
        ("The graph after all passes", str(inspection.simplified)),
        ("Kernels and memory", inspection.kernels),
        ("Graph and kernels for Graphviz", inspection.dot),
    ):
        yield _folded(name, _pre(text))


def _code(inspection: Inspection, name: str) -> str:
    """The functions that one calls, as links, and its code."""
    code = inspection.code
    links = ", ".join(f'<a href="#{one}">{one}</a>' for one in code.calls[name])
    calls = f"<p>calls {links}</p>" if links else ""
    return (
        calls
        + _folded("LLVM IR", _pre(code.llvm[name]))
        + _folded("Assembly", _pre(code.assembly.get(name, "")))
    )


def _kernels(inspection: Inspection) -> Iterator[str]:
    """Every kernel from its operations to its assembly."""
    for number, label in enumerate(inspection.program.tables.kernels):
        operations = inspection.operations_of(number)
        name = f"kernel{number}"
        yield _folded(
            f"{name}: {escape(label.family)}: {escape(label.name)}",
            _pre(operations) if operations else "", _code(inspection, name), id=name,
        )  # fmt: skip


def _functions(inspection: Inspection) -> Iterator[str]:
    kernels = {f"kernel{n}" for n in range(len(inspection.program.tables.kernels))}
    for name in inspection.code.llvm:
        if name not in kernels:
            yield _folded(escape(name), _code(inspection, name), id=name)


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


def table(profile: Profile, kernels: int) -> str:
    """The kernels, longest first; those below `kernels` have code to link to."""
    work = sum(row.work for row in profile.rows) or 1e-12
    names = ("time us", "share", "GFLOP/s", "of one core", "GB/s", "of memory", "phase", "chunks")
    head = "".join(f"<th>{name}</th>" for name in names)
    words = '<th class="text">what</th><th class="text">family</th>'
    lines = [f"<tr><th>kernel</th>{words}{head}</tr>"]
    for row in sorted(profile.rows, key=lambda row: -row.work):
        flops, traffic = profile.shares(row)
        link = f'<a href="#kernel{row.number}">{row.number}</a>'
        number = link if row.number < kernels else str(row.number)
        words = "".join(f'<td class="text">{escape(x)}</td>' for x in (row.name, row.family))
        numbers = (
            f"{row.work * 1e6:.1f}", f"{row.work / work:.1%}",
            f"{row.flops / max(row.work, 1e-12) / 1e9:.1f}", f"{flops:.1%}",
            f"{row.bytes / max(row.wall, 1e-12) / 1e9:.1f}", f"{traffic:.1%}",
            str(row.phase), str(row.chunks),
        )  # fmt: skip
        cells = "".join(f"<td>{x}</td>" for x in numbers)
        lines.append(f"<tr><td>{number}</td>{words}{cells}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
