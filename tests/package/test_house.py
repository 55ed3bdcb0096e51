"""How the tree is laid out: no import circles, no file that holds more than one idea's worth of lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.imports import circles, only_for_tests, python, rust

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "python").exists(), reason="the source tree is not here")

MOST_LINES = 600


def test_no_rust_file_is_in_a_circle_of_imports():
    graph = rust(ROOT / "src")
    assert ("hw", "array") in graph[("hw", "tlb")]  # not blind
    assert ("hw",) not in graph[("kernel", "step")]
    assert ("hw", "addr") in graph[("hw", "tlb")]  # through `pub use` in hw/mod.rs
    assert not circles(graph)


def test_no_python_module_is_in_a_circle_of_imports():
    graph = python(ROOT / "python" / "tlbcore")
    assert ("tlbcore", "_core") in graph[("tlbcore", "policy")]
    assert not circles(graph)


def files(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_circle_is_found_through_re_exports_and_paths_and_not_through_tests_or_parents(tmp_path):
    files(
        tmp_path,
        {
            "lib.rs": "pub mod a;\npub mod b;\nmod c;\nmod d;\n#[cfg(test)]\nmod e;\npub use c::Thing;\n",
            "a.rs": "use crate::b::B;\nmod part;\npub struct A(B);\n",
            "a/part.rs": "use super::A;\nfn f(_: A) {}\n",
            "b.rs": "pub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n// crate::a::A\n",
            "c.rs": 'pub struct Thing;\nfn f() { super::d::g("crate::a::A") }\n',
            "e.rs": "use crate::d::g;\nuse crate::a::A;\n",
            "d.rs": "use crate::Thing;\npub fn g(_: &str) -> Thing { Thing }\n",
        },
    )
    graph = rust(tmp_path)
    assert ("e",) not in graph
    assert graph[("a",)] == {("b",)}
    assert graph[("b",)] == set()
    assert graph[("d",)] == {("c",)}  # not the file that hands it on
    assert circles(graph) == [["c", "d"]]


def test_a_circle_of_python_modules_is_found_wherever_the_import_stands(tmp_path):
    files(
        tmp_path / "p",
        {
            "__init__.py": "from p.a import A as A\n",
            "a.py": "from p import b\nclass A: ...\n",
            "b.py": "def f():\n    from p.c import g\n",
            "c.py": "from p.b import f\nfrom p.room import x\n",
            "room/__init__.py": "from p.room.one import x\n",
            "room/one.py": "x = 1\n",
        },
    )
    graph = python(tmp_path / "p")
    assert circles(graph) == [["p/b", "p/c"]]


def test_no_file_outside_tests_and_data_has_more_than_600_lines():
    places = [*(ROOT / "src").rglob("*.rs"), *(ROOT / "fuzz").rglob("*.rs"), ROOT / "build.rs"]
    for folder in ("python", "pages", "benches", "examples"):
        places += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.rs")]
    tests = only_for_tests(ROOT / "src")
    assert ROOT / "src" / "hw" / "mmu" / "tests.rs" in tests
    lines = {
        str(path.relative_to(ROOT)): path.read_text().count("\n")
        for path in places
        if path not in tests and "target" not in path.parts
    }
    assert len(lines) > 150
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}


def test_no_documentation_of_the_crate_has_examples_that_only_cargo_test_would_run():
    # `.ci/run` and `make test` run the tests of the library alone, those in tests/*.rs among them.
    fences = [
        f"{path}:{number}"
        for path in (ROOT / "src").rglob("*.rs")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.lstrip().startswith(("/// ```", "//! ```", "/// ~~~", "//! ~~~"))
    ]
    assert not fences
    root = (ROOT / "src" / "lib.rs").read_text()
    assert all(f"mod {path.stem};" in root for path in (ROOT / "tests").glob("*.rs"))
