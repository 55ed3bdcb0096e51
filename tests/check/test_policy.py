"""Policies as text: every error has a place, and every form of a policy is the same policy."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import tlbcore as tc
from tlbcore import _core, op

HEAD = "policy p\n  var flag : 1 bit, per cpu, starts 1\n"


@pytest.mark.parametrize("name", list(tc.policies))
def test_every_built_in_policy_says_where_it_comes_from(name: str) -> None:
    policy = tc.policies[name]
    assert policy.name == name
    assert policy.doc
    assert policy.source


@pytest.mark.parametrize("name", list(tc.policies))
def test_the_canonical_text_is_the_same_policy(name: str) -> None:
    policy = tc.policies[name]
    again = tc.Policy(text=policy.canonical)
    assert again == policy
    assert again.digest == policy.digest
    assert [row[2] for row in again.listing()] == [row[2] for row in policy.listing()]
    assert pickle.loads(pickle.dumps(policy)) == policy


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "1:1", "an empty text"),
        ("to_kernel\n", "1:1", "expected `policy NAME`"),
        ("policy p\n  colour red\n", "2:3", "`colour` is no header line"),
        ("policy p\n  var x : 17 bits\n", "2:11", "at most 16"),
        ("policy p\n  var x : 1 bit, starts 2\n", "2:25", "at most 1"),
        (HEAD + "to_kernel\n\tfence\n", "4:1", "a tab"),
        (HEAD + "to_kernel\n  flagg = 1\n", "4:3", "did you mean `flag`"),
        (HEAD + "to_kernel\n  fense\n", "4:3", "did you mean `fence`"),
        (HEAD + "to_kernel\n  if me in nohzfull\n    fence\n", "4:12", "did you mean `nohz_full`"),
        (HEAD + "to_kernel\n  if feature ptx\n    fence\n", "4:14", "is no feature"),
        (HEAD + "to_kernel\n  if flag\n  fence\n", "4:3", "expected an indented block"),
        (HEAD + "to_kernel\n  fence\n    fence\n", "5:5", "indentation"),
        (HEAD + "to_kernel\n  break\n", "4:3", "outside of a loop"),
        (HEAD + "to_kernel\n  loop\n    fence\n", "4:3", "cannot end"),
        (HEAD + "to_kernel\n  flag[cpu] = 1\n", "4:3", "outside of `each cpu in`"),
        (HEAD + "to_kernel\n  to_kernel\n", "3:1", "uses itself"),
        (HEAD + "to_kernal\n  fence\n", "3:1", "did you mean `to_kernel`"),
        (HEAD + "to_kernel\n  ipi others, nowhere\n", "4:3", "which is not defined"),
        ("policy p\n  needs ptii\n", "2:9", "`ptii` is no feature; did you mean `pti`"),
        ("policy p\n  based on coalesce-v77\n", "2:12", "did you mean `coalesce-v7`"),
        ('policy p\n  lazy_max_facter "3"\n', "2:3", "did you mean `lazy_max_factor`"),
        ('policy p\n  lazy_max_factor "-3"\n', "2:19", "from 1 to 1000000 in quotes: got"),
        ("policy p\n  based on coalesce-v7\n\ncoalese\n  fence\n", "4:1", "did you mean `coalesce`"),
        (HEAD + "my_helper\n  fence\n", "3:1", "nothing uses section `my_helper`"),
        (HEAD + "to_kernel\n  flag = 2\n", "4:3", "`flag` has 1 bit: 2 does not fit"),
        (HEAD + "to_kernel\n  xchg flag, 2\n", "4:8", "`flag` has 1 bit: 2 does not fit"),
        (HEAD + "to_kernel\n  cas flag, 0, 2\n", "4:7", "`flag` has 1 bit: 2 does not fit"),
        (HEAD + "to_kernel\n  fence\nto_kernel\n  fence\n", "5:1", "a second time"),
        (HEAD + "to_kernel\n  mov cr3, kernel later\n", "4:3", "noflush"),
        (
            HEAD + "to_kernel\n" + "".join(f"  let {name} = 1\n" for name in "abcdefg"),
            "10:3",
            "more than 6",
        ),
        (HEAD + "interrupt\n  let a = flag\n  handle calls\n  flag = a\n", "5:3", "after `handle calls`"),
        (HEAD + 'to_kernel\n  flag = "1\n', "4:10", "no closing quote"),
        (HEAD + "to_kernel\n  flag = 1 ; fence\n", "4:12", "means nothing here"),
    ],
)
def test_an_error_names_file_line_column_and_rule(text: str, place: str, words: str) -> None:
    with pytest.raises(tc.PolicyError) as error:
        tc.Policy(text=text, file="my.policy")
    assert words in str(error.value)
    assert str(error.value).startswith(f"my.policy:{place}:")


def test_an_unknown_policy_gets_the_nearest_name() -> None:
    with pytest.raises(tc.PolicyError, match="did you mean `coalesce-v7`"):
        tc.as_policy("colesce-v7")


def test_a_policy_can_be_built_from_another_in_python() -> None:
    base = tc.policies["coalesce-v7"]
    mine = base.replace(
        name="mine",
        coalesce=[
            op.store("kernel_cr3_loaded", 1),
            op.if_("me in flush_mask", [op.fence(), op.invpcid(2)]),
        ],
    )
    ops = [row[2] for row in mine.listing() if row[0] == "syscall"]
    store = next(i for i, o in enumerate(ops) if o.startswith("Store"))
    flush = next(i for i, o in enumerate(ops) if o.startswith("Invpcid"))
    assert store < flush
    assert base.name == "coalesce-v7"
    assert mine != base


def test_what_only_a_replaced_section_used_goes_with_it() -> None:
    base = tc.Policy(text="policy p\nto_kernel\n  helper\nhelper\n  deeper\ndeeper\n  fence\n")
    assert base.replace(name="q", to_kernel=["lfence"]).sections == ("to_kernel",)
    with pytest.raises(tc.PolicyError, match="nothing uses section `to_kernal`; did you mean `to_kernel`"):
        base.replace(name="q", to_kernal=["lfence"])


def test_a_header_replaces_what_is_stated_once() -> None:
    tuned = tc.policies["lazy-tune"].replace(name="q", header=['lazy_max_factor "2"', "needs pti"])
    assert 'lazy_max_factor "2"' in tuned.text
    assert "8" not in tuned.text.split("lazy_max_factor")[1].splitlines()[0]
    assert tuned.needs == ("pti",)


def test_a_file_and_a_built_in_name_give_the_same_policy(tmp_path) -> None:
    path = tmp_path / "copy.policy"
    path.write_text(str(tc.policies["ct-late"]), encoding="utf-8")
    assert tc.as_policy(path) == tc.as_policy("ct-late")


def test_features_fold_as_alternatives_do() -> None:
    policy = tc.policies["coalesce-v7"]
    with_it = [row[2] for row in policy.listing()]
    without = [row[2] for row in policy.listing(["pti", "pcid", "housekeeping_overridden"])]
    assert any(o.startswith("Invpcid") for o in with_it)
    assert not any(o.startswith("Invpcid") for o in without)
    assert any(o.startswith("MovCr4Pge") for o in without)


def test_show_with_the_kernels_own_paths_prints_each_of_its_files():
    shown = subprocess.run(
        [sys.executable, "-m", "tlbcore", "policy", "show", "ipi", "--kernel"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert tc.policies["ipi"].text.rstrip() in shown
    files = dict(_core.policy_kernel())
    assert list(files) == ["linux.kernel", "contexts.kernel", "linux-7.3.kernel", "linux-fred.kernel"]
    for text in files.values():
        assert text.rstrip() in shown


@pytest.mark.parametrize(
    "order", [("to_kernel", "to_user", "text_sync"), ("text_sync", "to_user", "to_kernel")]
)
def test_each_of_several_replaced_sections_gets_its_own_statements(order: tuple[str, ...]) -> None:
    """Two are replaced and one is new; what is replaced stays where it stood, and no text ends in another section."""
    base = tc.policies["coalesce-v7"]
    lines = {
        "to_kernel": ["mov cr3, kernel noflush", "lfence", "coalesce"],
        "to_user": ["fence", "fence", "mov cr3, user owed"],
        "text_sync": ["serialize"],
    }
    mine = base.replace(name="mine", **{name: lines[name] for name in order})
    said = section_texts(mine.text)
    before = section_texts(base.text)
    assert list(said) == [*before, "text_sync"]
    for name, text in said.items():
        assert text == lines.get(name, before.get(name)), name
    at = [row[3] for row in mine.listing() if row[0] == "syscall"]
    assert at.count("lfence") == 1
    assert at.count("fence") == 2
    assert at.index("lfence") < at.index("body syscall") < at.index("fence")
    assert base.text == tc.policies["coalesce-v7"].text


def section_texts(text: str) -> dict[str, list[str]]:
    """Return the statements of each section of a policy's text."""
    out: dict[str, list[str]] = {}
    for line in text.splitlines()[1:]:
        if line and not line.startswith(" "):
            out[line.split()[0]] = []
        elif line and out:
            out[next(reversed(out))].append(line.removeprefix("  "))
    return out


WIDE = "policy p\n  var flag : 1 bit\n  var x : 8 bits\n"


def ops(text: str, program: str = "syscall") -> list[tuple[str, str]]:
    """Return the statements of a text that end in a program, each with its place."""
    rows = tc.Policy(text=WIDE + text, file="p.policy").listing()
    return [(row[3], row[4]) for row in rows if row[0] == program and row[4].startswith("p.policy")]


@pytest.mark.parametrize(("written", "value"), [("0x10", 16), ("0xff", 255), ("0xA", 10), ("16", 16)])
def test_a_number_with_0x_is_to_the_base_of_sixteen(written: str, value: int) -> None:
    assert ops(f"to_kernel\n  x = {written}\n") == [(f"x = {value}", "p.policy:5")]


@pytest.mark.parametrize(
    ("test", "kept"),
    [
        ("feature pti or flag == 1", ["x = 3"]),
        ("flag == 1 or feature pti", ["x = 3"]),
        ("feature pti and feature pcid", ["x = 3"]),
        ("feature invlpgb or feature rar", []),
        ("feature invlpgb and flag == 1", []),
        ("flag == 1 and feature invlpgb", []),
        ("not feature invlpgb or flag == 1", ["x = 3"]),
    ],
)
def test_what_the_features_decide_is_not_tested_again(test: str, kept: list[str]) -> None:
    assert [op for op, _ in ops(f"to_kernel\n  if {test}\n    x = 3\n")] == kept


def test_each_statement_names_the_place_of_its_own_section() -> None:
    text = 'to_kernel @ "one"\n  x = 1\n  deeper\n\nto_user @ "two"\n  x = 2\n\ndeeper\n  x = 3\n'
    assert ops(text) == [
        ("x = 1", "p.policy:5 (one)"),
        ("x = 3", "p.policy:12"),
        ("x = 2", "p.policy:9 (two)"),
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("to_kernel\n  cas flag, 2, 0\n", "5:7", "`flag` has 1 bit: 2 does not fit"),
        ("to_kernel\n  cas x, 256, 0\n", "5:7", "`x` has 8 bits: 256 does not fit"),
        ("to_kernel\n  bts x, 8\n", "5:7", "`x` has bits 0 to 7: there is no bit 8"),
        ("to_kernel\n  let r = 1\n  let s = r[cpu]\n", "6:11", "`r` is no variable or local"),
        ("to_kernel\n  invlpgb range asid 2\n", "5:3", "`invlpgb` names ASID 0 or 1, not `2`"),
        (
            "to_kernel\n  invlpgb range, asid 1\n",
            "5:3",
            "takes pages, then `asid N`, then `final`, not `, asid 1`",
        ),
        ("to_kernel\n  fence 3\n", "5:9", "expected the end of the line, found `3`"),
        # Where interrupts are on, a wait is none of two for each other; in an NMI they stay off.
        (
            "to_kernel\n  ipi others, flush_handler\n  await acks\n",
            "6:3",
            "`syscall` waits here for other CPUs",
        ),
        (
            "to_kernel\n  sti\n  ipi others, flush_handler\n  await acks\n  cli\n",
            "7:3",
            "`nmi_user` waits here",
        ),
    ],
)
def test_an_error_of_the_assembler_names_place_and_rule(text: str, place: str, words: str) -> None:
    with pytest.raises(tc.PolicyError) as error:
        tc.Policy(text=WIDE + text, file="my.policy")
    assert words in str(error.value)
    assert str(error.value).startswith(f"my.policy:{place}:")


@pytest.mark.parametrize("asid", [0, 1])
def test_a_broadcast_may_name_an_asid(asid: int) -> None:
    assert [op for op, _ in ops(f"to_kernel\n  invlpgb range asid {asid}\n")] == [
        f"invlpgb range asid {asid}"
    ]


def test_a_patched_branch_is_built_of_the_same_words() -> None:
    lines = [op.mov_cr3("kernel"), op.rsp("stack"), op.if_("text key is new", [op.fence()])]
    poke = [op.poke("head", "int3", site="key"), op.poke("tail", "new"), op.poke("head", "new", site="key")]
    built = tc.policies["ipi"].replace(name="p", header=[op.site("key")], to_kernel=lines, text_poke=poke)
    for line in (
        "  site key\n",
        "  rsp stack\n",
        "  if text key is new\n",
        "  text key head = int3\n",
        "  text tail = new\n",
    ):
        assert line in built.canonical
    again = tc.Policy(text=built.canonical)
    assert again == built
    assert [row[2] for row in again.listing()] == [row[2] for row in built.listing()]
