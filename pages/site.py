"""A hook of MkDocs: the page of reference gets the docstring of every public name, by the module that defines it."""

from __future__ import annotations

import itertools
from typing import Any

import tlbcore


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return a page's text, with the docstrings of all public names if it is the page of reference."""
    if page.file.src_uri != "reference.md":
        return markdown
    return f"{markdown}\n\n{public()}"


def public() -> str:
    """Return what makes mkdocstrings write every public name; exceptions have a page of their own."""
    exports = sorted((module, name) for name, module in tlbcore._EXPORTS.items() if module != "tlbcore._core")
    out = []
    for module, names in itertools.groupby(exports, key=lambda export: export[0]):
        out.append(f"## {_room(module)}\n")
        out += [
            f"::: {module}.{name}\n    options: {{show_root_heading: true, heading_level: 3}}\n"
            for _, name in names
        ]
    return "\n".join(out)


def _room(module: str) -> str:
    return module.removeprefix("tlbcore.").split(".")[0].capitalize()
