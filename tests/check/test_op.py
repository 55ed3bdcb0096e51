"""Words of the policy language as Python functions: the text of each, and what is refused before the core sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import op

TEXTS = [
    (op.text("lfence"), "lfence"),
    (op.var("x"), "var x : 1 bits, per cpu, starts 0"),
    (op.var("x", bits=16, starts=3, per_cpu=False), "var x : 16 bits, shared, starts 3"),
    (op.var("x", user_mapped=True), "var x : 1 bits, per cpu, starts 0, user mapped"),
    (op.site("patch"), "site patch"),
    (op.poke("head", "int3"), "text head = int3"),
    (op.poke("tail", "new", site="patch"), "text patch tail = new"),
    (op.rsp("scratch"), "rsp scratch"),
    (op.store("x[cpu]", 1), "x[cpu] = 1"),
    (op.let("old", "x"), "let old = x"),
    (op.xchg("x", 1), "xchg x, 1"),
    (op.xchg("x", 1, to="old"), "let old = xchg x, 1"),
    (op.cas("x", 0, 1, to="old"), "let old = cas x, 0, 1"),
    (op.fence(), "fence"),
    (op.cas(name="x", old="a", new="b", to="old"), "let old = cas x, a, b"),
    (op.xchg(name="x", value=1, to="old"), "let old = xchg x, 1"),
    (op.poke(part="head", value="old", site="p"), "text p head = old"),
    (op.mov_cr3(what="to", noflush=None), "mov cr3, to owed"),
    (op.if_(test="x", then=["fence"], or_else=["break"]), "if x\n  fence\nelse\n  break"),
    (op.each(cpus="targets", body=["fence"]), "each cpu in targets\n  fence"),
    (op.ipi(cpus="targets", handler="h"), "ipi targets, h"),
    (op.mov_cr3("kernel"), "mov cr3, kernel noflush"),
    (op.mov_cr3("kernel", noflush=False), "mov cr3, kernel"),
    (op.mov_cr3("user"), "mov cr3, user owed"),
    (op.mov_cr3("user", noflush=True), "mov cr3, user noflush"),
    (op.mov_cr3("user", noflush=False), "mov cr3, user"),
    (op.mov_cr4_pge(True), "mov cr4, pge on"),
    (op.mov_cr4_pge(np.bool_(False)), "mov cr4, pge off"),
    (op.invpcid(1), "invpcid context kernel"),
    (op.invpcid(2), "invpcid all-including-global"),
    (op.invpcid(np.uint8(3)), "invpcid all"),
    (op.invlpg(), "invlpg range"),
    (op.invlpg("page"), "invlpg page"),
    (op.clflush(), "clflush range"),
    (op.clflush("page"), "clflush page"),
    (op.wbinvd(), "wbinvd"),
    (op.if_("me in targets", ["fence", "wbinvd"]), "if me in targets\n  fence\n  wbinvd"),
    (op.if_("feature invpcid", "fence", "wbinvd"), "if feature invpcid\n  fence\nelse\n  wbinvd"),
    (op.if_("x", [op.loop(["break"])], ["fence"]), "if x\n  loop\n    break\nelse\n  fence"),
    (op.each("online", [op.put(), "fence"]), "each cpu in online\n  put cpu into targets\n  fence"),
    (op.each("online", op.put()), "each cpu in online\n  put cpu into targets"),
    (op.loop(op.if_("x", "break")), "loop\n  if x\n    break"),
    (op.break_(), "break"),
    (op.ipi("targets", "do_flush"), "ipi targets, do_flush"),
    (op.await_acks(), "await acks"),
    (op.touch("entry"), "touch entry"),
    (op.body("nmi"), "body nmi"),
    (op.use("helper"), "helper"),
]


@pytest.mark.parametrize(("text", "wanted"), TEXTS)
def test_the_text_of_a_word(text: str, wanted: str) -> None:
    assert text == wanted


def test_every_word_has_its_text() -> None:
    import ast
    from pathlib import Path

    asked = {
        node.attr
        for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "op"
    }
    assert asked - {"__all__"} == set(op.__all__)


@pytest.mark.parametrize("on", ["off", 0, 1, None])
def test_cr4_pge_is_on_or_off(on: Any) -> None:
    with pytest.raises(tc.PolicyError, match=f"^CR4.PGE must be True or False: got {on!r}$"):
        op.mov_cr4_pge(on)


@pytest.mark.parametrize("kind", [True, 0, 4, 1.0, "x"])
def test_invpcid_has_three_types(kind: Any) -> None:
    with pytest.raises(ValueError, match=f"^invpcid type must be 1, 2 or 3 here: got {kind}$"):
        op.invpcid(kind)


def test_statements_of_the_wrong_kind_are_named() -> None:
    for call, said in [
        (lambda: op.loop(3), r"loop: body must be Sequence\[str\]: got 3 \(int\)"),
        (lambda: op.mov_cr3("user", noflush="x"), "mov_cr3: noflush must be bool . None: got 'x'"),
        (lambda: op.each("online", [1]), r"each: body must be Sequence\[str\]: got \[1\] \(list\)"),
    ]:
        with pytest.raises(TypeError, match=f"^{said}"):
            call()
