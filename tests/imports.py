"""Which file of a tree imports which, and the circles among them.

A Rust file is named by its module path (`("hw", "tlb")`), a Python file by its dotted path. What a file only hands on
(`pub use`, `from m import X as X`) is no import of its own: who names it is taken to the file that defines it. A module
may use what the module it is part of defines (`use super::Engine`), so these arrows do not count; all others must form
no circle. Rust's `#[cfg(test)]` items do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

Name = tuple[str, ...]
Graph = dict[Name, set[Name]]

_TEST = re.compile(
    r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?(?:mod|impl|fn|use|const|struct)\b"
)
_TEST_FILE = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?mod (\w+);")
_USE = re.compile(r"^\s*(pub(?:\([^)]*\))? )?use ([^;]+);", re.MULTILINE)
_PATH = re.compile(r"(?<![\w:.$])(?:\w+::)+\w+")


def _stripped(text: str) -> str:
    """Rust without comments, texts and what only tests see."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'r#"(?:.|\n)*?"#', '""', text)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text)
    kept, at = [], 0
    for found in _TEST.finditer(text):
        if found.start() < at:
            continue
        kept.append(text[at : found.start()])
        at = re.compile(r"[{;]").search(text, found.end()).start()  # type: ignore[union-attr]
        depth = 0
        while True:
            depth += (text[at] == "{") - (text[at] == "}")
            at += 1
            if depth == 0:
                break
    return "".join([*kept, text[at:]])


def _leaves(tree: str, prefix: Name = ()) -> Iterator[tuple[Name, str]]:
    """The paths of a use-declaration, each with the name it has here."""
    tree = tree.strip()
    group = re.fullmatch(r"((?:\w+\s*::\s*)*)\{(.*)\}", tree, re.DOTALL)
    if group:
        prefix += tuple(re.findall(r"\w+", group[1]))
        depth, part = 0, ""
        for sign in group[2] + ",":
            if sign == "," and depth == 0:
                if part.strip():
                    yield from _leaves(part, prefix)
                part = ""
                continue
            depth += (sign == "{") - (sign == "}")
            part += sign
        return
    path, _, alias = tree.partition(" as ")
    whole = prefix + tuple(re.findall(r"[\w*]+", path))
    if whole[-1] == "self":
        whole = whole[:-1]
    yield whole, alias.strip() or whole[-1]


def only_for_tests(src: Path) -> set[Path]:
    """The Rust files that only tests see: modules declared under `#[cfg(test)]`, and what they contain."""
    found = set()
    for path in src.rglob("*.rs"):
        folder = path.parent if path.stem in ("mod", "lib") else path.with_suffix("")
        for name in _TEST_FILE.findall(path.read_text()):
            found |= {folder / f"{name}.rs", *(folder / name).rglob("*.rs")}
    return found


class _Crate:
    def __init__(self, src: Path) -> None:
        self.texts: dict[Name, str] = {}
        for path in sorted({*src.rglob("*.rs")} - only_for_tests(src)):
            name = path.relative_to(src).with_suffix("").parts
            self.texts[name[:-1] if name[-1] in ("mod", "lib") else name] = _stripped(path.read_text())
        self.uses = {
            name: [(bool(public), *leaf) for public, tree in _USE.findall(text) for leaf in _leaves(tree)]
            for name, text in self.texts.items()
        }

    def absolute(self, here: Name, path: Name) -> Name | None:
        """A path written in module `here` from the crate's root; None if it leads out of the crate."""
        if path[0] == "crate":
            return path[1:]
        if path[0] in ("super", "self"):
            while path and path[0] in ("super", "self"):
                here = here[:-1] if path[0] == "super" else here
                path = path[1:]
            return here + path
        return here + path if here + path[:1] in self.texts else None

    def file_of(self, path: Name, seen: tuple[Name, ...] = ()) -> Name | None:
        """The file that defines what an absolute path names."""
        file = path
        while file not in self.texts:
            file = file[:-1]
        if path in seen or file == path:
            return None if path in seen else file
        item, rest = path[len(file)], path[len(file) + 1 :]
        for _, target, alias in self.uses[file]:
            to = self.absolute(file, target)
            if to is None:
                continue
            if alias == item:
                return self.file_of(to + rest, (*seen, path))
            if alias == "*":
                owner = self.file_of(to[:-1], (*seen, path))
                if owner and re.search(rf"\b(?:fn|struct|enum|const|type|trait) {item}\b", self.texts[owner]):
                    return owner
        return file

    def imports(self, here: Name) -> set[Name]:
        found, aliases = set(), {}
        for public, path, alias in self.uses[here]:
            to = self.absolute(here, path)
            if to is None:
                continue
            aliases[alias] = to
            if not public and to not in self.texts:
                found.add(self.file_of(to[:-1] if alias == "*" else to))
        for written in _PATH.findall(_USE.sub("", self.texts[here])):
            path = tuple(written.split("::"))
            to = self.absolute(here, path) or (aliases[path[0]] + path[1:] if path[0] in aliases else None)
            if to is not None:
                found.add(self.file_of(to))
        return {file for file in found if file is not None and file != here}


def rust(src: Path) -> Graph:
    """Which file under `src` imports which."""
    crate = _Crate(src)
    return {name: crate.imports(name) for name in crate.texts}


def python(package: Path) -> Graph:
    """Which module of a package imports which, imports within functions and for type checkers included."""
    files: dict[Name, Path] = {}
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):
        name = path.relative_to(package.parent).with_suffix("").parts
        files[name[:-1] if name[-1] == "__init__" else name] = path
    graph: Graph = {}
    for name, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module is None or node.level:
                continue
            module = tuple(node.module.split("."))
            for one in node.names:
                handed_on = one.asname == one.name or (path.name == "__init__.py" and len(name) == 1)
                to = (*module, one.name) if (*module, one.name) in files else module
                if to in files and to != name and not handed_on:
                    found.add(to)
        graph[name] = found
    return graph


def circles(graph: Mapping[Name, set[Name]]) -> list[list[str]]:
    """Files that reach each other, a list for each such set; a module may name the one it is part of."""
    arrows = {name: {to for to in targets if name[: len(to)] != to} for name, targets in graph.items()}

    def reached(start: Name) -> set[Name]:
        seen: set[Name] = set()
        todo = [start]
        while todo:
            for to in arrows.get(todo.pop(), ()):
                if to not in seen:
                    seen.add(to)
                    todo.append(to)
        return seen

    all_reached = {name: reached(name) for name in arrows}
    found = {
        tuple(sorted("/".join(other) for other in all_reached[name] if name in all_reached[other]))
        for name in arrows
        if name in all_reached[name]
    }
    return [list(circle) for circle in sorted(found)]
