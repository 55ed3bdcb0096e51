"""Small questions whose answers are worked out by hand: rights, flush info, contradictions, what a run changes."""

from __future__ import annotations

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore_litmus

LESSENED = """litmus lessened
  verdict "verified"
  page d : direct map
  var go : 1 bit, shared, starts 0
  var used : 1 bit, shared, starts 0
  var gone : 1 bit, shared, starts 0

cpu 0
  pte d = {} locked
  go = 1
  await used == 1
  pte d = less-rights locked
  request d
  invlpg d
  promise d
  gone = 1

cpu 1
  await go == 1
  invlpg d
  read d
  xchg used, 1
  await gone == 1
  read d
"""


@pytest.mark.parametrize(
    ("held", "verdict"),
    [("less-rights", "verified"), ("initial", "violated: stale_access (reused)")],
)
def test_a_walk_takes_over_the_rights_of_the_entry(held: str, verdict: str):
    """CPU 1 is left out of the flush: what it holds has the rights of now (S4), or more."""
    for reduce in (True, False):
        assert tc.litmus(LESSENED.format(held), reduce=reduce).found == verdict


@pytest.mark.parametrize(
    ("kind", "value", "verdict"),
    [
        ("direct map", "initial", "verified"),
        ("direct map", "fresh", "verified"),  # the frame of a page of the direct map stays what it is
        ("vmalloc", "initial", "verified"),
        ("vmalloc", "fresh", "violated: stale_access (reused)"),
        ("direct map", "none", "violated: unmapped_access"),
    ],
)
def test_an_entry_written_as_it_was_leaves_harmless_what_was_cached(kind: str, value: str, verdict: str):
    """Nobody changes rights: the frame that is mapped decides (S4). CPU 1 may hold the translation of before."""
    text = f"""litmus again
  verdict "verified"
  page d : {kind}

cpu 0
  pte d = {value} locked
  request d
  promise d

cpu 1
  read d
  read d
"""
    for reduce in (True, False):
        assert tc.litmus(text, reduce=reduce).found == verdict
    assert explore_litmus(text).found == verdict


@pytest.mark.parametrize(("value", "found"), [(3, "allowed"), (0, "forbidden"), (2, "forbidden")])
def test_the_generation_of_the_flush_info_is_not_its_mm(value: int, found: str):
    text = f"""litmus info
  verdict "{found}"
  exists "x == {value} and y == 0"
  var x : 4 bits, shared, starts 1
  var y : 4 bits, shared, starts 1

cpu 0
  flush info 0, 3
  let g = info generation
  let mm = info mm
  x = g
  y = mm
"""
    assert tc.litmus(text).found == found


def test_a_contradiction_of_five_bytes_is_seen_though_each_has_many_values():
    """Of each byte nine cases are told apart: 9^5 are tried, and as many as 2^18 would be."""
    names = "abcde"
    text = "litmus contradiction\n"
    text += '  never "a != 0 and a == b and b == c and c == d and d == e and {}"\n'
    text += "".join(f"  var {name} : 8 bits, shared, starts 0\n" for name in names)
    text += "\ncpu 0\n" + "".join(f"  {name} = 1\n" for name in names)
    with pytest.raises(tc.PolicyError, match="it contradicts itself: it holds for no values"):
        tc.litmus(text.format("a != e"))
    assert tc.litmus(text.format("a != 0")).found == "violated: invariant"


def test_a_cpu_that_joins_an_address_space_changes_its_mask():
    counterexample = tc.check("early-ack-tables").counterexample
    assert counterexample is not None
    joins = [step for step in counterexample.steps if step.what == "join mm_cpumask of next"]
    # The first process is address space 2, and nobody else has it loaded: the mask is the CPU's bit.
    assert [step.changes for step in joins] == [(f"mm_cpumask[mm 2]={1 << step.cpu:#b}",) for step in joins]
    assert [step.cpu for step in joins] == [1]


@pytest.mark.parametrize(
    ("bits", "store"),
    [
        ("0..1", "v_word[me] = (v_word[me] & 4) | (1 << 0);"),
        ("1..2", "v_word[me] = (v_word[me] & 1) | (1 << 1);"),
        ("1..1", "v_word[me] = (v_word[me] & 5) | (1 << 1);"),
        ("0..2", "v_word[me] = 1;"),
    ],
)
def test_a_store_to_a_part_of_a_variable_keeps_the_other_bits_in_promela(bits: str, store: str):
    head = 'policy p\n  "x"\n  based on ipi\n  var word : 3 bits, per cpu, starts 0\n'
    part = f"  field part : bits {bits} of word\n\nct_enter\n  part = 1\n"
    assert store in tc.Policy(text=head + part).promela()


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("while x == 0\n    xchg y, 1\n    xchg y, 0", "violated: livelock"),  # round through two states
        ("while x == 0\n    y = 1\n    fence", "violated: livelock"),
        ("xchg x, 1\n  while x == 0\n    xchg y, 1\n    xchg y, 0", "verified"),
    ],
)
def test_a_round_through_several_states_is_a_livelock_as_one_through_a_single_state_is(
    body: str, verdict: str
):
    text = f"""litmus round
  verdict "{verdict}"
  var x : 1 bit, shared, starts 0
  var y : 1 bit, shared, starts 0

cpu 0
  {body}
"""
    for reduce in (True, False):
        assert tc.litmus(text, reduce=reduce).found == verdict


@pytest.mark.parametrize("memory", [3_200_000, 6_400_000])
def test_a_search_is_cut_where_its_states_fill_the_memory(memory: int):
    """A state takes eight bytes in the set, and two for how it was found and until it is expanded (`visited.rs`)."""
    cut = tc.check(
        "coalesce-v7-fixed",
        roles="purge; purge; isolated 1; isolated 1",
        world="pti",
        assume={"D": "none"},
        memory=memory,
        confirm=False,
    )
    assert cut.status == "inconclusive"
    # What is known of each CPU's moves takes the rest; a limit is looked at before each block of states.
    assert memory / 2 < 10 * cut.states < 1.1 * memory


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_how_many_threads_search_is_not_seen(threads: int):
    """However early their tables grow, one after the other."""
    asked = {"cpus": 3, "world": "pti", "assume": {"D": "none"}}
    one, many = (tc.check("coalesce-v7-fixed", threads=n, **asked) for n in (1, threads))
    assert (many.status, many.states) == (one.status, one.states)
    assert one.status == "verified"


@pytest.mark.parametrize("nmis", [0, 1])
def test_where_an_nmi_hit_is_seen_of_each_place_it_can_hit(nmis: int):
    seen = tc.check("ipi", world="pti", nmis=nmis, assume={"D": "none", "N": "none"}).witnesses
    places = {what: hit for what, hit in seen.items() if "NMI" in what}
    every = [
        "an NMI came from user mode",
        "an NMI hit the kernel under the user CR3",
        "an NMI hit the kernel under the kernel CR3",
    ]
    assert places == (dict.fromkeys(every, True) if nmis else {})


@pytest.mark.parametrize("v", [0, 1])
@pytest.mark.parametrize("features", ["pcid", "pcid pti"])
@pytest.mark.parametrize(
    "test",
    ["feature pti and v == 1", "v == 1 and feature pti", "feature pti or v == 1", "v == 1 or feature pti"],
)
@pytest.mark.parametrize("negated", [False, True])
def test_a_feature_decides_its_part_of_a_test_and_leaves_the_rest(
    test: str, features: str, v: int, negated: bool
):
    has, wanted = "pti" in features, v == 1
    holds = (has and wanted if "and" in test else has or wanted) != negated
    asked = f"not ({test})" if negated else test
    text = f'litmus a\n  exists "seen == 1"\n  features "{features}"\n  var v : 1 bit, shared, starts {v}\n'
    text += f"  var seen : 1 bit, shared, starts 0\n\ncpu 0\n  if {asked}\n    seen = 1\n"

    assert tc.litmus(text).found == ("allowed" if holds else "forbidden")


def test_a_local_stays_while_another_takes_the_gs_base():
    text = (
        'litmus a\n  exists "{}"\n  var v : 1 bit, shared, starts 1\n  var seen : 1 bit, shared, starts 0\n\n'
    )
    text += "cpu 0\n  let a = v\n  let b = v\n  let a = gsbase\n  seen = b\n  fence\n"

    assert tc.litmus(text.format("seen == 1")).found == "allowed"
    assert tc.litmus(text.format("seen == 0")).found == "forbidden"


@pytest.mark.parametrize(
    "question", ["next mm", "mm to flush", "info mm", "info generation", "loaded asid", "asid for 1"]
)
@pytest.mark.parametrize("more", ["fence", "1", "and v", "mm"])
def test_nothing_stands_behind_a_question(question: str, more: str):
    with pytest.raises(tc.PolicyError, match=r"^litmus:5:"):
        tc.litmus(f"litmus a\n  var v : 1 bit, shared, starts 0\n\ncpu 0\n  let a = {question} {more}\n")


def test_a_program_that_is_missing_is_missed_in_the_policy_that_was_asked():
    mine = tc.Policy(text='policy mine\n  "x"\n  based on ipi\n')
    with pytest.raises(tc.CheckError, match="mine") as said:
        tc.check(mine, roles="purge; nowhere")
    assert "nowhere" in str(said.value)


@pytest.mark.parametrize(
    ("nmis", "mces", "said"),
    [
        (0, 0, "no NMIs, no #MCs"),
        (1, 0, "at most 1 NMI, no #MCs"),
        (0, 1, "no NMIs, at most 1 #MC"),
        (2, 0, "at most 2 NMIs, no #MCs"),
    ],
)
def test_a_verdict_counts_in_words_and_says_of_nmis_what_was_seen_if_there_are_some(
    nmis: int, mces: int, said: str
):
    by_one = tc.check("ipi", roles="purge; isolated 1 by syscall", world="pti", nmis=nmis, mces=mces)
    bounds = "of 2 CPUs, 1 page, 1 ASID, 1 entry per isolated CPU, 1 flush round"
    assert f"no violation in any interleaving {bounds}, {said}, entries by syscall" in by_one.sentence
    assert any("NMI" in seen for seen in by_one.witnesses) is (nmis + mces > 0)
    if (nmis, mces) == (0, 0):
        both = tc.check("ipi", roles="purge*2; isolated 2 by syscall", world="pti", asids=2).sentence
        assert "of 2 CPUs, 1 page, 2 ASIDs, 2 entries per isolated CPU, 2 flush rounds, no NMIs" in both


def test_a_task_goes_to_whichever_cpu_rests_the_first_among_them():
    text = 'litmus a\n  exists "{}"\n  assume "fills=demand"\n  var v : 1 bit, per cpu, starts 0\n'
    text += "  var seen : 2 bits, shared, starts 0\n\n"
    text += "cpu 0\n  v = 1\n  fence\n\ncpu 1\n  migrate\n  let r = v\n  if r == 1\n    seen = 1\n"

    assert tc.litmus(text.format("seen == 1")).found == "allowed", "CPU 0 rested"
    assert tc.litmus(text.format("seen == 0")).found == "allowed", "it did not yet"


@pytest.mark.parametrize("access", ["read", "write"])
@pytest.mark.parametrize("of", ["d", "v"])
@pytest.mark.parametrize(("flushed", "found"), [("d", "verified"), ("v", "violated: stale_access (reused)")])
def test_a_range_that_loses_rights_is_the_page_that_lasts(access: str, of: str, flushed: str, found: str):
    """Of two pages that a flush of a range covers, only that of the direct map loses its rights (A1)."""
    text = "litmus a\n  page d : direct map\n  page v : vmalloc\n\ncpu 0\n  pte range = less-rights locked\n"
    text += f"  request range\n  invlpg {flushed}\n  ipi others, h\n  await acks\n  promise range\n"
    text += f"\ncpu 1\n  {access} {of}\n\nh\n  invlpg {flushed}\n"

    assert tc.litmus(text).found == tc.litmus(text, reduce=False).found == found


def test_a_condition_that_holds_only_amid_many_values_is_no_contradiction():
    """Three bytes that differ from each other, and from what stands in the condition and its neighbours."""
    names = "abc"
    amid = " and ".join(f"{name} > 1 and {name} < 254" for name in names)
    text = f'litmus amid\n  exists "{amid} and a != b and b != c and a != c"\n'
    text += "".join(f"  var {name} : 8 bits, shared, starts 0\n" for name in names)
    assert tc.litmus(f"{text}\ncpu 0\n  a = 7\n  b = 8\n  c = 9\n").found == "allowed"
    assert tc.litmus(f"{text}\ncpu 0\n  a = 7\n  b = 8\n  c = 8\n").found == "forbidden"


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        ("x=0", "allowed"),
        ("y=2", "allowed"),
        ("x=0 /\\ y=2", "allowed"),
        ("x=2", "forbidden"),
        ("y=0", "forbidden"),
    ],
)
def test_a_register_of_herds_files_starts_with_what_is_said_of_its_column_or_with_0(ends: str, found: str):
    text = "X86 starts\n{ x=1; y=1; 1:EAX=2; }\n P0          | P1          ;\n MOV [x],EAX | MOV [y],EAX ;\n"
    assert tc.litmus(f"{text}exists ({ends})\n").found == found
