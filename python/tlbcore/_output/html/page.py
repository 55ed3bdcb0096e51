"""One self-contained HTML page: the frame, tables and bars that all reports share.

A page needs no network: style and script are in it, and so is the JSON document that it shows. Charts are SVG made
by us (`charts` says why).
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from tlbcore._output.legend import used
from tlbcore._output.visible import visible

Cell = str | int | float | None

_DEEP = 8  # spaces: a line of a table that goes on below its last column
_SHORT = 24  # characters that a cell keeps on one line


def escape(text: object) -> str:
    """Return a text for HTML, with characters that would be invisible or misleading made visible."""
    return html.escape(visible(str(text)))


def anchor(heading: str) -> str:
    """Return the id of a heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"


def section(heading: str, *parts: str) -> str:
    """Return a section with a heading that `page` lists at its top."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{anchor(heading)}">\n<h2>{escape(heading)}</h2>\n{body}\n</section>'


def preformatted(lines: Sequence[str]) -> str:
    """Return lines of a text report as they stand there: those of a table stay whole, others may be broken."""
    blocks: list[tuple[bool, list[str]]] = []
    for line in lines:
        text = line.lstrip()
        deep = len(line) - len(text) > _DEEP
        row = "  " in text.rstrip() or "|" in text or (deep and bool(blocks) and blocks[-1][0])
        if not blocks or blocks[-1][0] != row:
            blocks.append((row, []))
        blocks[-1][1].append(line)
    return "\n".join(
        f"<pre{'' if row else ' class=prose'}>{escape(chr(10).join(block))}</pre>" for row, block in blocks
    )


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str, *, marks: Sequence[str] = ()
) -> str:
    """Return a table that can be sorted by each column; None is an empty cell that says *not recorded* when read aloud.

    `marks` is a CSS class per row.
    """
    out = [
        scroller(caption) + '<table class="sortable">',
        f"<caption>{escape(caption)}</caption>",
        "<thead><tr>",
    ]
    # A long name may be broken at its underscores.
    names = [escape(head).replace("_", "_<wbr>") for head in heads]
    out += [f'<th scope="col"><button type="button">{name}</button></th>' for name in names]
    out.append("</tr></thead><tbody>")
    for i, row in enumerate(rows):
        mark = f' class="{marks[i]}"' if i < len(marks) and marks[i] else ""
        out.append(f"<tr{mark}>{''.join(map(_cell, row))}</tr>")
    out.append("</tbody></table></div>")
    return "\n".join(out)


def scroller(caption: str) -> str:
    """Open what a wide table scrolls in: keys reach it, and it has a name when read aloud."""
    return f'<div class="scroll" role="group" tabindex="0" aria-label="{escape(caption)}">'


def _cell(value: Cell) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<td data-value="" aria-label="not recorded"></td>'
    if isinstance(value, int | float):
        shown = f"{value:,}" if isinstance(value, int) else number(value)
        return f'<td class="number" data-value="{value!r}">{shown}</td>'
    short = ' class="short"' if len(value) <= _SHORT else ""
    return f"<td{short}>{escape(value)}</td>"


def rows_of(columns: Mapping[str, Any], caption: str, units: Mapping[str, str] | None = None) -> str:
    """Return a result's table as one to sort; NaN, None and -1 in a column of numbers are empty cells."""
    heads = [
        f"{name} ({units[name]})" if units and units.get(name, "1") not in ("", "1") else name
        for name in columns
    ]
    rows = [[_plain(value) for value in row] for row in zip(*map(list, columns.values()), strict=True)]
    return table([head.replace("_", " ") for head in heads], rows, caption)


def _plain(value: Any) -> Cell:
    plain = value.item() if hasattr(value, "item") else value
    if plain is None or plain == -1 or (isinstance(plain, float) and math.isnan(plain)):
        return None
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return plain if isinstance(plain, int | float | str) else str(plain)


def number(value: float) -> str:
    """Return four significant digits, with thousands separated; very small and large values have an exponent."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e15:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.3e}"


def matrix(
    corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]], caption: str
) -> str:
    """Return counts of rows by columns, darker where there are more."""
    top = max((count for _, counts in rows for count in counts), default=0) or 1
    out = [scroller(caption) + "<table>", f"<caption>{escape(caption)}</caption>", "<thead><tr>"]
    out += [f'<th scope="col">{escape(head)}</th>' for head in (corner, *columns)]
    out.append("</tr></thead><tbody>")
    for name, counts in rows:
        cells = "".join(
            f'<td class="number heat" style="--share:{count / top:.3f}">{count:,}</td>' for count in counts
        )
        out.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    out.append("</tbody></table></div>")
    return "\n".join(out)


def bars(
    names: Sequence[str],
    values: Sequence[float | None],
    unit: str,
    caption: str,
    *,
    hollow: Sequence[bool],
    ranges: Sequence[str] = (),
) -> str:
    """Return a horizontal bar per name; hollow ones are inert, names without a value say so, or their range."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    top = max(known, default=0.0) or 1.0
    lines = []
    for i, (name, value, inert) in enumerate(zip(names, values, hollow, strict=True)):
        y = 22 * i
        missing = value is None or math.isnan(value)
        length = 0.0 if missing else 450 * max(0.0, value or 0.0) / top
        absent = ranges[i] if i < len(ranges) and ".." in ranges[i] else "no value"
        said = absent if missing else f"{number(value or 0.0)} {unit}"
        said += " (inert: mainline runs)" if inert else ""
        lines.append(
            f'<text x="0" y="{y + 15}">{escape(name)}</text>'
            f'<rect{" class=" + chr(34) + "inert" + chr(34) if inert else ""} x="280" y="{y + 3}" '
            f'width="{length:.1f}" height="15"></rect>'
            f'<text x="{286 + length:.1f}" y="{y + 15}">{escape(said)}</text>'
        )
    return (
        f'<figure>{scroller(caption)}<svg class="bars" viewBox="0 0 960 {22 * len(names)}" role="img" '
        f'aria-label="{escape(caption)}">{"".join(lines)}</svg></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def sections_of(report: str) -> list[tuple[str, list[str]]]:
    """Split a text report at its headings (lines that are not indented and follow an empty one)."""
    parts: list[tuple[str, list[str]]] = []
    for block in re.split(r"\n\n", report.strip("\n")):
        lines = block.split("\n")
        if len(lines) > 1 and not lines[0].startswith(" "):
            parts.append((lines[0], lines[1:]))
        elif not lines[0].startswith(" "):
            parts.append((lines[0], []))
        elif parts:
            parts[-1][1].extend(["", *lines])
    return parts


def _words(sections: Sequence[str]) -> str:
    """Return what the words mean that a page uses, folded."""
    text = html.unescape(re.sub(r"<script.*?</script>|<[^>]*>", " ", "\n".join(sections), flags=re.DOTALL))
    rows = "".join(
        f"<dt>{escape(word.split('|')[0])}</dt><dd>{escape(said)}</dd>" for word, said in used(text)
    )
    return f'<details class="words"><summary>Words</summary><dl>{rows}</dl></details>\n' if rows else ""


def page(
    title: str, lede: Sequence[str], sections: Sequence[str], document: Mapping[str, Any], *, status: str = ""
) -> str:
    """Return a whole page: title, first sentences, sections, and the JSON document for machines."""
    folder = files("tlbcore") / "_output" / "html"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    heads = re.findall(r'<section id="([^"]*)">\n<h2>(.*?)</h2>', "\n".join(sections))
    links = "".join(f'<li><a href="#{where}">{head.split(" (")[0]}</a></li>' for where, head in heads)
    # `</` would end the script element that holds the document.
    data = json.dumps(document, indent=None, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="tlbcore">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1{f' class="{status}"' if status else ""}>{escape(title)}</h1>
{"".join(f'<p class="lede">{escape(line)}</p>' for line in lede)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{chr(10).join(sections)}
{_words(sections)}</main>
<footer><p>Written by tlbcore. The figures are in this page as JSON too (the element <code>#data</code>).</p></footer>
<script type="application/json" id="data">{data}</script>
<script>
{script}</script>
</body>
</html>
"""
