"""Mutants of Rust sources, all in one text: each place asks `crate::mutant(N)` which form of it runs.

A crate is then built once for hundreds of mutants, and a process chooses one of them by its environment. Places are
found with tree-sitter; what it does not parse (arguments of macros), what is evaluated while compiling, patterns,
types, and what is compiled for tests alone is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

RELATIONS = {
    b"<": (b"<=", b">="),
    b"<=": (b"<", b">"),
    b">": (b">=", b"<="),
    b">=": (b">", b"<"),
    b"==": (b"!=",),
    b"!=": (b"==",),
    b"&&": (b"||",),
    b"||": (b"&&",),
    b"+": (b"-",),
    b"-": (b"+",),
    b"*": (b"+",),
    b"/": (b"*",),
    b"%": (b"/",),
    b"&": (b"|",),
    b"|": (b"&",),
    b"^": (b"|",),
    b"<<": (b">>",),
    b">>": (b"<<",),
}

# What is never executed, or is executed by the compiler.
SKIPPED = {
    "attribute_item",
    "inner_attribute_item",
    "const_item",
    "static_item",
    "const_block",
    "enum_item",
    "struct_item",
    "union_item",
    "type_item",
    "use_declaration",
    "macro_definition",
    "macro_invocation",
    "parameters",
    "closure_parameters",
    "type_arguments",
    "type_parameters",
    "array_type",
    "let_pattern",
    "where_clause",
}
# Of these only some fields are expressions.
FIELDS = {
    "let_declaration": ("value", "alternative"),
    "let_condition": ("value",),
    "for_expression": ("value", "body"),
    "closure_expression": ("body",),
    "match_arm": ("pattern", "value"),
    "match_pattern": ("condition",),
    "function_item": ("body",),
    "impl_item": ("body",),
    "trait_item": ("body",),
    "field_expression": ("value",),
    "type_cast_expression": ("value",),
    "generic_function": ("function",),
}
# How much room is made ahead, what prints for people who debug, and the words of a panic: no test should know.
HINTS = re.compile(
    rb"(with_capacity|reserve|reserve_exact|shrink_to|expect|spin_loop|prefetch\w*|_mm_prefetch.*)$"
)
NUMBERS = {"u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize"}


@dataclass(frozen=True, eq=False)
class Mutant:
    """One change: bytes `start..end` of a file become `text`; `wrap` says how the choice is written."""

    file: str
    start: int
    end: int
    text: bytes
    wrap: str  # "value": an expression; "gone": a statement; "early": a return at the beginning of a function
    what: str

    def applied(self, source: bytes) -> str:
        """Return the whole file with this change alone."""
        return (source[: self.start] + self.text + source[self.end :]).decode()


@dataclass
class Written:
    """A text with its mutants, and where each stands in it."""

    text: bytearray = field(default_factory=bytearray)
    around: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)  # of a whole choice
    inside: list[tuple[int, int, int]] = field(default_factory=list)  # of one mutant's form


def parser():
    import tree_sitter
    import tree_sitter_rust

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))


def mutants(file: str, source: bytes) -> list[Mutant]:
    """Return every mutant of a source, in the order of its places."""
    return list(of_node(file, parser().parse(source).root_node))


def of_node(file: str, node) -> Iterator[Mutant]:
    if node.type in SKIPPED or (node.type == "function_item" and is_const(node)) or only_prints(node):
        return
    yield from at(file, node)
    if node.type in FIELDS:
        inner = [child for name in FIELDS[node.type] for child in node.children_by_field_name(name)]
    elif node.type == "array_expression" and node.child_by_field_name("length"):
        inner = [child for child in node.named_children if child != node.child_by_field_name("length")]
    elif node.type == "call_expression" and HINTS.search(node.child_by_field_name("function").text):
        inner = [node.child_by_field_name("function")]
    else:
        inner = node.named_children
    hidden = False
    for child in inner:
        if child.type == "attribute_item":
            hidden |= b"cfg(test)" in child.text or b"cfg(not(" in child.text
        elif child.type not in ("line_comment", "block_comment"):
            if not hidden:
                yield from of_node(file, child)
            hidden = False


def is_const(function) -> bool:
    return any(child.type == "function_modifiers" and b"const" in child.text for child in function.children)


def only_prints(node) -> bool:
    trait = node.child_by_field_name("trait") if node.type == "impl_item" else None
    return trait is not None and trait.text.split(b"::")[-1] in (b"Debug", b"Display")


def at(file: str, node) -> Iterator[Mutant]:
    """Yield what can be done to this very node."""

    def value(text: bytes, what: str, of=node) -> Mutant:
        return Mutant(file, of.start_byte, of.end_byte, text, "value", what)

    if node.type in ("binary_expression", "compound_assignment_expr"):
        sign = node.child_by_field_name("operator")
        assigns = node.type == "compound_assignment_expr"
        for other in RELATIONS.get(sign.text.removesuffix(b"=") if assigns else sign.text, ()):
            other += b"=" * assigns
            before, after = sign.start_byte - node.start_byte, sign.end_byte - node.start_byte
            yield value(
                node.text[:before] + other + node.text[after:], f"{sign.text.decode()} for {other.decode()}"
            )
    elif node.type == "unary_expression" and node.children[0].type in ("!", "-"):
        if node.children[1].type != "integer_literal":
            yield value(node.children[1].text, f"without {node.children[0].type}")
    elif node.type == "integer_literal":
        yield value(node.text + b" + 1", "one more")
    elif node.type == "boolean_literal":
        yield value(b"false" if node.text == b"true" else b"true", "the other truth")
    elif node.type in ("if_expression", "while_expression", "match_pattern"):
        condition = node.child_by_field_name("condition")
        if condition is not None and condition.type not in ("let_condition", "let_chain", "boolean_literal"):
            for constant in (b"true", b"false")[node.type == "while_expression" :]:
                yield value(constant, f"condition {constant.decode()}", condition)
    elif node.type == "expression_statement" and node.children[-1].type == ";":
        inner = node.children[0]
        call = inner.children[0] if inner.type == "try_expression" else inner
        hint = call.type == "call_expression" and HINTS.search(call.child_by_field_name("function").text)
        if inner.type in ("call_expression", "try_expression", "assignment_expression") and not hint:
            yield Mutant(file, node.start_byte, node.end_byte, b"", "gone", "statement gone")
    elif node.type == "function_item" and node.child_by_field_name("body"):
        body = node.child_by_field_name("body").start_byte + 1
        for answer in answers(node.child_by_field_name("return_type")):
            text = b" return " + answer + b"; " if answer else b" return; "
            yield Mutant(file, body, body, text, "early", f"returns {answer.decode() or 'at once'}")


def answers(kind) -> tuple[bytes, ...]:
    """Return simple values of a type; an empty one for no value."""
    if kind is None:
        return (b"",)
    name = kind.text.decode()
    if name == "bool":
        return (b"true", b"false")
    if name in NUMBERS:
        return (b"0", b"1")
    if re.match(r"Option<", name):
        return (b"None",)
    if re.match(r"Vec<", name):
        return (b"Vec::new()",)
    if name == "String":
        return (b"String::new()",)
    if re.match(r"Result<\(\), ", name):
        return (b"Ok(())",)
    return ()


def write(source: bytes, chosen: Iterable[tuple[int, Mutant]]) -> Written:
    """Return a source in which each of these mutants, by its number, can be chosen while it runs."""
    choices: dict[tuple[int, int, str], list[tuple[int, Mutant]]] = {}
    for number, mutant in chosen:
        choices.setdefault((mutant.start, -mutant.end, mutant.wrap), []).append((number, mutant))
    out = Written()
    todo = sorted(choices.items())
    at = 0

    def copy(until: int) -> None:
        nonlocal at
        while todo and todo[0][0][0] < until:
            (start, _, wrap), here = todo.pop(0)
            out.text += source[at:start]
            at = start
            one(wrap, here)
        out.text += source[at:until]
        at = until

    def one(wrap: str, here: list[tuple[int, Mutant]]) -> None:
        begin = len(out.text)
        end = here[0][1].end
        if wrap == "gone":
            out.text += f"if !crate::mutant({here[0][0]}) {{ ".encode()
            copy(end)
            out.text += b" }"
        else:
            out.text += b"(" * (wrap == "value")
            for number, mutant in here:
                out.text += f"if crate::mutant({number}) {{ ".encode()
                form = len(out.text)
                out.text += mutant.text
                out.inside.append((form, len(out.text), number))
                out.text += b" } else " if wrap == "value" else b" }"
            if wrap == "value":
                out.text += b"{ "
                copy(end)
                out.text += b" })"
        out.around.append((begin, len(out.text), tuple(number for number, _ in here)))

    copy(len(source))
    return out


def blamed(written: Written, spans: list[tuple[int, int]]) -> set[int]:
    """Return which mutants a compiler's error in these bytes is due to, or the nearest where no choice holds one."""
    for start, end in spans:
        for begin, stop, number in written.inside:
            if begin <= start and end <= stop:
                return {number}
    for start, end in spans:
        holding = [a for a in written.around if a[0] <= start and end <= a[1]]
        if holding:
            return set(min(holding, key=lambda a: a[1] - a[0])[2])
    for start, end in spans:
        held = [a for a in written.around if start <= a[0] and a[1] <= end]
        if held:
            return {number for a in held for number in a[2]}
    if not written.around:
        return set()
    start = spans[0][0]
    return set(min(written.around, key=lambda a: min(abs(a[0] - start), abs(a[1] - start)))[2])


SWITCH = r"""//! Which mutant runs: `TLBCORE_MUTANT` says, or `TLBCORE_REACHED` names a file for those reached.
#![allow(unsafe_code, missing_docs)]
use std::ffi::c_void;
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

const UNKNOWN: u32 = u32::MAX;
const NOTE: u32 = u32::MAX - 1;
static CHOSEN: AtomicU32 = AtomicU32::new(UNKNOWN);
static REACHED: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" {
    fn mmap(at: *mut c_void, bytes: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut c_void;
}

#[inline(always)]
pub(crate) fn mutant(number: u32) -> bool {
    let chosen = CHOSEN.load(Relaxed);
    chosen == number || (chosen >= NOTE && seldom(number))
}

#[cold]
#[inline(never)]
fn seldom(number: u32) -> bool {
    if CHOSEN.load(Relaxed) == UNKNOWN {
        if let Ok(path) = std::env::var("TLBCORE_REACHED") {
            let file = std::fs::File::options().read(true).write(true).open(path).expect("the file is there");
            let bytes = file.metadata().expect("it has a size").len() as usize;
            // SAFETY: read and write, shared; the file has a byte for every number and is never cut.
            let map = unsafe { mmap(std::ptr::null_mut(), bytes, 3, 1, file.into_raw_fd(), 0) };
            REACHED.store(map.cast(), Relaxed);
            CHOSEN.store(NOTE, Relaxed);
        } else {
            let asked = std::env::var("TLBCORE_MUTANT").ok().and_then(|n| n.parse().ok());
            CHOSEN.store(asked.unwrap_or(0), Relaxed);
        }
    }
    if CHOSEN.load(Relaxed) == NOTE {
        // SAFETY: as above; another thread that comes here first has stored the map before it noted.
        unsafe { REACHED.load(Relaxed).add(number as usize).write_volatile(1) };
        return false;
    }
    CHOSEN.load(Relaxed) == number
}

/// For a process that was forked.
#[unsafe(no_mangle)]
pub extern "C" fn tlbcore_mutant(number: u32) {
    CHOSEN.store(number, Relaxed);
}
"""


def arm(tree: Path) -> None:
    """Write the switch into a crate whose sources are to ask it; lints are left out."""
    root = tree / "src" / "lib.rs"
    if "mod schemata;" not in root.read_text():
        root.write_text(root.read_text() + "\nmod schemata;\npub(crate) use schemata::mutant;\n")
    (tree / "src" / "schemata.rs").write_text(SWITCH)
    manifest = tree / "Cargo.toml"
    manifest.write_text(manifest.read_text().split("[lints.rust]")[0])
