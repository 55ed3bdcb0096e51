"""Top-level entries that the table of some address space lacks: `tops` of a litmus test (SEMANTICS H2)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore_litmus

CASES = sorted((Path(__file__).parents[1] / "litmus" / "casebook").glob("c03-*.litmus"))
TEXT = """litmus tops
  "A program goes from one table to another; a page of the kernel hangs from the entries that it writes."
  verdict "forbidden"
  page k : vmalloc, global
  var top : 1 bit, per mm, starts 0
  tops "k: top"
  asids "2"
  exists "fault(0, k)"

cpu 0
  let m = 2
  top[m] = 1
  fence
  mov cr3, mm 2 asid 1 noflush
  read k
"""


def found(text: str) -> str:
    """What every form of search finds, which must be the same."""
    by = {tc.litmus(text, reduce=reduce).found for reduce in (True, False)} | {explore_litmus(text).found}
    assert len(by) == 1, by
    return by.pop()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", "forbidden"),  # the table that is loaded leads there
        ("let m = 2", "let m = 0", "allowed"),  # the other one does
        ("  fence\n", "", "forbidden"),  # MOV CR3 publishes
        ("starts 0", "starts 1", "forbidden"),
        ("top[m] = 1", "top[m] = 0", "allowed"),
        ("vmalloc, global", "vmalloc, absent", "allowed"),  # the other entries are needed as well
    ],
)
def test_a_walk_needs_the_top_level_entry_of_the_loaded_table(old: str, new: str, expected: str) -> None:
    assert found(TEXT.replace(old, new, 1) if old else TEXT) == expected


@pytest.mark.parametrize(("fence", "expected"), [("  fence\n", "forbidden"), ("", "allowed")])
def test_a_walk_does_not_see_what_is_in_the_store_buffer(fence: str, expected: str) -> None:
    text = TEXT.replace("  let m = 2\n  top[m] = 1\n  fence\n", "").replace(
        "noflush\n", "noflush\n  let m = 2\n  top[m] = 1\n" + fence
    )
    assert found(text) == expected


@pytest.mark.parametrize(("page", "expected"), [("vmalloc, global", "allowed"), ("vmalloc", "forbidden")])
def test_a_global_leaf_answers_under_a_table_that_does_not_lead_there(page: str, expected: str) -> None:
    """Filled under `init_mm`, it serves the other table; a leaf of a PCID does not."""
    text = TEXT.replace("let m = 2", "let m = 0").replace("vmalloc, global", page)
    text = text.replace("  fence\n", "  fence\n  read k\n").replace("  read k\n", "  read k\n  x = 1\n")
    text = text.replace("  var top", "  var x : 2 bits, shared, starts 0\n  var top").replace(
        "x = 1\n  mov", "lfence\n  mov"
    )
    assert found(text.replace('"fault(0, k)"', '"x == 1 and not fault(0, k)"')) == expected


def test_a_cached_upper_entry_leads_past_the_top_level_table() -> None:
    """As in `frees of page tables`, where upper entries are part of the state."""
    text = (
        TEXT.replace("let m = 2", "let m = 0")
        .replace("asid 1", "asid 0")
        .replace("vmalloc, global", "vmalloc")
    )
    text = text.replace(
        "  fence\n", "  fence\n  read k\n  invlpg k\n  read k\n  table k = none\n  table k = fresh\n"
    )
    assert found(text) == "allowed"


@pytest.mark.parametrize("order", ["", '  assume "stores=sc"\n'])
def test_a_store_to_the_copy_of_an_address_space_that_nobody_has_says_nothing(order: str) -> None:
    text = TEXT.replace("  mov cr3, mm 2 asid 1 noflush\n", "").replace("  asids", f"{order}  asids")
    assert tc.litmus(text).found.startswith("inconclusive")


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_the_case_of_2025_comes_out_the_same_in_the_second_explorer(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert found(text) == ("forbidden" if "fixed" in file.stem else "allowed")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("k: top", "k", "`tops` is PAGE: VAR"),
        ("k: top", "j: top", "`j` is no page"),
        ("k: top", "k: other", "`other` is no variable with a copy per mm"),
        ("vmalloc, global", "user of 2", "`k` is not of the kernel's half alone"),
        ("vmalloc, global", "vmalloc, user mapped", "`k` is not of the kernel's half alone"),
        ("  asids", '  features "pti fred"\n  asids', "switches `fred` off under `pti`"),
    ],
)
def test_what_cannot_be_is_refused_at_its_line(old: str, new: str, said: str) -> None:
    with pytest.raises(tc.TlbcoreError, match=re.escape(said)):
        tc.litmus(TEXT.replace(old, new))
