"""Spin's verdict on the exported text; skipped where Spin or a C compiler is missing."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import tlbcore as tc

needs_spin = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("cc") is None, reason="needs spin and cc"
)


def spin_finds_an_error(text: str, folder) -> bool:
    (folder / "m.pml").write_text(text, encoding="utf-8")
    subprocess.run(["spin", "-a", "m.pml"], cwd=folder, check=True, capture_output=True)
    subprocess.run(
        ["cc", "-O0", "-w", "-DSAFETY", "-o", "pan", "pan.c"], cwd=folder, check=True, capture_output=True
    )
    out = subprocess.run(
        ["./pan", "-E", "-m1000000"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    assert "max search depth too small" not in out
    return "errors: 0" not in out


@needs_spin
@pytest.mark.parametrize(
    ("name", "danger", "violated"),
    [
        ("ipi", "recycled", False),
        ("coalesce-v7", "none", True),
        ("coalesce-v7-fixed", "recycled", False),
        ("ct-late", "none", False),
        ("ct-late", "recycled", True),
        ("pending-bit", "recycled", False),
        ("pending-bit-plain", "none", True),
        ("flush-on-exit", "none", True),
        ("quarantine", "recycled", False),
    ],
)
def test_spin_gives_the_verdict_under_sequential_consistency(name, danger, violated, tmp_path) -> None:
    text = tc.policies[name].promela(isolated=1, entries=2, danger=danger)
    assert spin_finds_an_error(text, tmp_path) is violated


def test_a_scope_without_isolated_cpus_is_refused() -> None:
    with pytest.raises(tc.PolicyError, match="isolated must be an integer from 1 to 4: got 0"):
        tc.policies["ipi"].promela(isolated=0)
    with pytest.raises(tc.PolicyError, match="`none` or `recycled`"):
        tc.policies["ipi"].promela(danger="maybe")


HEAD = 'policy p\n  "x"\n  based on ipi\n{}\nflush_kernel_range\n  flush_here\n  {}\n'


@pytest.mark.parametrize(
    ("declared", "line", "said"),
    [
        ("", "synchronize", r":\d+.*no Promela for `rcu .*`: who is in a read-side section .*L10"),
        ("", "call later nothing", r":\d+.*no Promela for `.*`: who is in a read-side section .*L10"),
        ("", "migrate", r":7.*no Promela for `migrate`: .* one process \(SEMANTICS L11\)"),
        (
            "  page l : vmalloc\n  page s : vmalloc, in l\n",
            "invlpg s",
            "page `s` lies in `l`: no Promela for translations of two sizes .SEMANTICS H9.",
        ),
        (
            "  page k : vmalloc\n  page o : vmalloc\n",
            "invlpg o",
            "page `o`: no Promela for more than one page",
        ),
    ],
)
def test_what_has_no_form_in_promela_is_refused_with_the_reason(declared: str, line: str, said: str) -> None:
    policy = tc.Policy(text=HEAD.format(declared, line) + "\nnothing\n  return\n", programs=("nothing",))
    with pytest.raises(tc.PolicyError, match=said):
        policy.promela()


@needs_spin
@pytest.mark.parametrize(("steps", "error"), [(255, False), (256, True)])
def test_values_of_more_than_a_byte_do_not_wrap_there(steps: int, error: bool, tmp_path) -> None:
    """A purge that flushes nobody unless a counter, which starts just below, has reached 0 by wrapping."""
    body = f"  let x = add n, 1\n  if x == {steps}\n    return\n  flush_kernel_now\n"
    text = HEAD.format("  var n : 16 bits, shared, starts 256\n", "fence").replace(
        "  flush_here\n  fence\n", body
    )
    assert spin_finds_an_error(tc.Policy(text=text).promela(isolated=1, entries=1), tmp_path) is False
    kept = text.replace("    return\n", "").replace(
        "  flush_kernel_now\n", "    fence\n  else\n    flush_kernel_now\n"
    )
    assert spin_finds_an_error(tc.Policy(text=kept).promela(isolated=1, entries=1), tmp_path) is error


@pytest.mark.parametrize(("bits", "word"), [(1, "byte"), (8, "byte"), (9, "int"), (16, "int")])
def test_a_variable_is_as_wide_as_it_is_declared(bits: int, word: str) -> None:
    """A byte of Promela has 8 bits; one that is wider beside it changes nothing of a narrow one."""
    start = (1 << bits) - 1
    declared = f"  var n : {bits} bit{'s' * (bits > 1)}, shared, starts {start}\n  var w : 16 bits, shared, starts 0\n"
    lines = tc.Policy(text=HEAD.format(declared, "fence")).promela().splitlines()
    assert f"{word} v_n = {start};" in lines
    assert "int v_w = 0;" in lines
