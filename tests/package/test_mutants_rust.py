"""The tool of `make mutants-rust`: what it changes, what it leaves alone, that it finds a survivor and sees a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("tree_sitter")
pytest.importorskip("tree_sitter_rust")

from tests import judging, mutants_rust, schemata

CRATE = b"""
pub fn last(pages: u32, first: u32) -> u32 { first + pages }
pub fn fits(pages: u32, room: u32) -> bool { pages < room }
pub fn clear(words: &mut Vec<u32>) { words.clear(); }
pub fn never(x: u32) -> u32 { if x > 7 { x - 1 } else { x } }
"""

TESTS = b"""
#[test] fn sums() { assert_eq!(last(3, 4), 7); }
#[test] fn fitting() { assert!(fits(3, 5)); assert!(!fits(6, 5)); }
#[test] fn clearing() { let mut words = vec![1]; clear(&mut words); assert!(words.is_empty()); }
"""


def forms(text: str) -> list[str]:
    """Return what a text becomes."""
    source = text.encode()
    return [mutant.applied(source) for mutant in schemata.mutants("a.rs", source)]


@pytest.mark.parametrize(
    ("text", "become"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a == b", ["a != b"]),
        ("a && b", ["a || b"]),
        ("a + b", ["a - b"]),
        ("a >> b", ["a << b"]),
        ("!a", ["a"]),
        ("-a", ["a"]),
        ("true", ["false"]),
        ("7", ["7 + 1"]),
        ("a[1]", ["a[1 + 1]"]),
        ("a.1", []),
        ("[0; 4]", ["[0 + 1; 4]"]),
        ("a as u8", []),
        ("let b: [u8; 4] = a;", []),
        ("const B: u8 = 4;", []),
        ("vec![1, 2]", []),
        ("a += b;", ["a -= b;"]),
        ("a = b;", [""]),
        ("go(a);", [""]),
        ("go(a)?;", [""]),
        ("v.reserve(9);", []),
        ("Vec::with_capacity(9)", []),
        ("if a { b() } else { c() }", ["if true { b() } else { c() }", "if false { b() } else { c() }"]),
        ("while a { b() }", ["while false { b() }"]),
        ("if let Some(3) = a { b() }", []),
        ("match a { 3 => b, _ => c }", []),
        (
            "match a { d if e => b, _ => c }",
            ["match a { d if true => b, _ => c }", "match a { d if false => b, _ => c }"],
        ),
        ("for i in a { b(i) }", []),
    ],
)
def test_what_a_place_becomes(text: str, become: list[str]):
    before, after = "fn f() -> X { ", " }"
    assert forms(before + text + after) == [before + form + after for form in become]


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        (" -> bool", ["true", "false"]),
        (" -> u32", ["0", "1"]),
        (" -> Option<u8>", ["None"]),
        (" -> Vec<u8>", ["Vec::new()"]),
        (" -> Result<(), E>", ["Ok(())"]),
        (" -> X", []),
    ],
)
def test_what_a_function_answers_at_once(kind: str, answers: list[str]):
    assert forms(f"fn f(){kind} {{ g }}") == [f"fn f(){kind} {{ return {answer};  g }}" for answer in answers]


@pytest.mark.parametrize(
    "text",
    [
        "#[cfg(test)] mod tests { fn f() -> u8 { 1 } }",
        '#[cfg(not(target_arch = "x86_64"))] fn f() -> u8 { 1 }',
        "const fn f() -> u8 { 1 }",
        "impl fmt::Display for X { fn fmt(&self) -> bool { true } }",
        "impl Debug for X { fn fmt(&self) -> bool { true } }",
        "enum X { A = 1 }",
        "static A: u8 = 1;",
    ],
)
def test_what_no_test_can_know_is_left_alone(text: str):
    assert forms(text) == []


def test_what_follows_a_part_for_tests_is_changed():
    assert forms("#[cfg(test)] mod tests { }\nfn f() -> X { a < b }")


def test_a_module_for_tests_alone_is_no_source(tmp_path: Path):
    folder = tmp_path / "src" / "hw"
    folder.mkdir(parents=True)
    for name, text in {"mod.rs": "mod a;", "a.rs": "#[cfg(test)]\nmod tests;", "a/tests.rs": ""}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    assert [path.name for path in mutants_rust.sources(tmp_path, "hw")] == ["a.rs", "mod.rs"]


def test_a_change_elsewhere_leaves_the_draw_as_it_is(tmp_path: Path):
    folder = tmp_path / "src" / "hw"
    folder.mkdir(parents=True)

    def drawn() -> list[tuple[str, bytes]]:
        some = mutants_rust.draw(tmp_path, "hw", 5, 24, None)
        return [(d.key, d.mutant.text) for d in some]

    (folder / "a.rs").write_bytes(CRATE)
    before = drawn()
    (folder / "a.rs").write_bytes(b"// A line more.\n" + CRATE)
    assert drawn() == before
    assert len(before) == 5
    seldom = mutants_rust.draw(tmp_path, "hw", 99, 24, {"src/hw/a.rs": {4}})
    assert {d.line for d in seldom} == {4}, "only a line that changed"


def test_an_error_is_blamed_on_the_mutant_that_holds_it():
    source = b"fn f() -> X { g(a < b) + 1 }"
    every = schemata.mutants("a.rs", source)
    written = schemata.write(source, enumerate(every, 1))
    form = written.text.index(b"a >= b")
    whole = [number for number, m in enumerate(every, 1) if m.text == b"a >= b"]
    assert schemata.blamed(written, [(form, form + 6)]) == set(whole)
    original = written.text.rindex(b"a < b")
    relations = {number for number, m in enumerate(every, 1) if m.text in (b"a >= b", b"a <= b")}
    assert schemata.blamed(written, [(original, original + 5)]) == relations
    assert schemata.blamed(written, [(0, 2)]), "an error outside is due to the nearest"


@pytest.mark.skipif(shutil.which("rustc") is None, reason="needs rustc")
def test_one_build_finds_a_planted_survivor_and_notices_the_others(tmp_path: Path):
    """Room for exactly as many pages as asked for is no case of these tests, and a function is not called by any."""
    every = dict(enumerate(schemata.mutants("a.rs", CRATE), 1))
    text = schemata.write(CRATE, every.items()).text
    (tmp_path / "schemata.rs").write_text(schemata.SWITCH)
    (tmp_path / "lib.rs").write_bytes(b"mod schemata;\nuse schemata::mutant;\n" + text + TESTS)
    build = ["rustc", "--edition=2024", "--test", "-Awarnings", "lib.rs", "-o", "tests"]
    subprocess.run(build, cwd=tmp_path, check=True)

    def passes(**more: str) -> bool:
        found = subprocess.run(
            [tmp_path / "tests"], env={**os.environ, **more}, cwd=tmp_path, capture_output=True, check=False
        )
        return found.returncode == 0

    (tmp_path / "reached").write_bytes(bytes(len(every) + 1))
    assert passes(TLBCORE_REACHED="reached")
    reached = {number for number, byte in enumerate((tmp_path / "reached").read_bytes()) if byte}
    in_last_line = {number for number, m in every.items() if m.start > CRATE.index(b"pub fn never")}
    assert reached == every.keys() - in_last_line
    assert len(in_last_line) >= 7

    alive = {number for number in every if passes(TLBCORE_MUTANT=str(number))}
    assert in_last_line < alive
    assert [every[number].text for number in alive - in_last_line] == [b"pages <= room"]


def test_an_argument_is_for_one_change_of_one_line(monkeypatch: pytest.MonkeyPatch):
    row = {"was": "if ready {", "line": "if true {", "why": "It always is."}
    monkeypatch.setattr(mutants_rust, "argued", lambda file: [row] if file == "src/hw/a.rs" else [])
    one = {
        "file": "src/hw/a.rs",
        "changed": "if true {",
        "difference": "@@ -1 +1 @@\n-  if ready {\n+  if true {",
    }
    assert mutants_rust.is_argued(one)
    assert not mutants_rust.is_argued({**one, "difference": one["difference"].replace("ready", "full")})
    assert not mutants_rust.is_argued({**one, "changed": "if false {"})
    assert not mutants_rust.is_argued({**one, "file": "src/hw/b.rs"})


@pytest.mark.parametrize("count", [0, 1, 16, 17, 100])
def test_groups_of_tests_grow_and_the_longest_run_alone(count: int):
    names = [str(n) for n in range(count)]
    groups = list(judging.growing(names))
    assert [name for group in groups for name in group] == names
    assert all(len(group) == 1 for group in groups[-min(count, 16) :])


def test_the_quickest_tests_that_reach_a_mutant_come_first_within_the_time():
    tests = {"a": [3.0, [1, 2]], "b": [1.0, [1]], "x/c": [2.0, [1]], "d": [0.5, [2]], "x/y.py::e": [0.1, [1]]}
    assert [name for name, _ in judging.quickest(tests, 1, 3.5)] == ["x/y.py::e", "b", "x/c"]
    assert [name for name, _ in judging.quickest(tests, 1, 0.01)] == ["x/y.py::e"], "one at least"
    assert [name for name, _ in judging.quickest(tests, 1, 9.0, ("x",))] == ["x/y.py::e", "x/c"]
    assert [name for name, _ in judging.quickest(tests, 1, 9.0, ("x/y.py",))] == ["x/y.py::e"]
    assert judging.quickest(tests, 3, 9.0) == []
