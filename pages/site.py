"""A hook of MkDocs: the page of reference gets the docstring of every public name, by the module that defines it."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import Any

import tlbcore


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return a page's text, with the docstrings of all public names if it is the page of reference."""
    if page.file.src_uri != "reference.md":
        return markdown
    return f"{markdown}\n\n{public()}"


def public() -> str:
    """Return what makes mkdocstrings write every public name, those of modules too; exceptions have their own page."""
    exports = sorted((module, name) for name, module in tlbcore._EXPORTS.items() if module != "tlbcore._core")
    out = []
    for module, names in itertools.groupby(exports, key=lambda export: export[0]):
        out.append(f"## {_room(module)}\n")
        out += [
            f"::: {module}.{name}\n    options: {{show_root_heading: true, heading_level: 3}}\n"
            for _, name in names
        ]
    for name in tlbcore._MODULES:
        out.append(f"## {name.capitalize()}: the module `tlbcore.{name}`\n")
        out += [
            f"::: tlbcore.{name}.{each}\n    options: {{show_root_heading: true, heading_level: 3}}\n"
            for each in _names(name)
        ]
    return "\n".join(out)


def _names(module: str) -> list[str]:
    """Return the public functions and classes of a module, from its text: the site is built without the core."""
    folder = Path(tlbcore.__file__).parent
    file = folder / f"{module}.py"
    tree = ast.parse((file if file.exists() else folder / module / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [name for name in sorted(ast.literal_eval(node.value)) if not name.isupper()]
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return sorted(name for name in defined if not name.startswith("_"))


def _room(module: str) -> str:
    return module.removeprefix("tlbcore.").split(".")[0].capitalize()
