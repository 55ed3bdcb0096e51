"""Pages whose type of memory changes, and the lines of caches that stay behind (SEMANTICS H11, S14)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import _core, op
from tlbcore.reference.explorer import explore_litmus

CASEBOOK = Path(__file__).parents[1] / "litmus" / "casebook"
CASES = sorted(file for n in ("c42", "c43") for file in CASEBOOK.glob(f"{n}-*.litmus"))
LINE, REUSED = "violated: stale_line", "violated: stale_access (reused)"


def found(text: str) -> str:
    """What every form of search finds, which must be the same; of two rules the shorter run's may differ."""
    fast = [tc.litmus(text, reduce=reduce) for reduce in (True, False)]
    by = [result.found for result in fast]
    if fast[1].states <= 1000:  # the second explorer takes its time
        by.append(explore_litmus(text).found)
    assert len({one.partition(":")[0] for one in by}) == 1, by
    if len(set(by)) > 1:
        assert {one.removeprefix("violated: ") for one in by} <= explore_litmus(text, every=True).rules.keys()
    return by[0]


def of(*columns: str, handler: str = "invlpg p", head: str = "", region: str = "direct map") -> str:
    """What is found of columns whose statements stand between semicolons."""
    out = f"litmus a\n{head}  page p : {region}\n"
    for n, column in enumerate(columns):
        out += f"\ncpu {n}\n" + "".join(f"  {line.strip()}\n" for line in column.split(";"))
    handled = "".join(f"  {line.strip()}\n" for line in handler.split(";"))
    return found(out + f"\nhandler\n{handled}")


TOLD = "ipi others, handler; invlpg p; await acks"


@pytest.mark.parametrize(
    ("flush", "expected"),
    [
        (f"{TOLD}; clflush p; fence", "verified"),  # cpa_flush
        (f"clflush p; {TOLD}", LINE),  # before the translations are gone, lines come back
        (f"clflush p; {TOLD}; clflush p; fence", "verified"),
        (f"{TOLD}; wbinvd", LINE),  # the other CPU's lines stay
        (TOLD, LINE),
        ("invlpg p; clflush p; fence", LINE),  # the other CPU has its translation
        ("clflush p; fence", REUSED),  # its own translation, too
    ],
)
def test_lines_are_flushed_everywhere_and_last(flush: str, expected: str) -> None:
    assert of(f"pte p = uncached; request p; {flush}; promise p", "lfence") == expected


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        ("invlpg p; wbinvd", "verified"),  # __cpa_flush_all
        ("wbinvd; invlpg p", LINE),
        ("invlpg p", LINE),
    ],
)
def test_wbinvd_is_of_the_cpu_that_runs_it(handler: str, expected: str) -> None:
    body = "pte p = uncached; request p; ipi others, handler; invlpg p; wbinvd; await acks; promise p"
    assert of(body, "lfence", handler=handler) == expected


def test_the_way_of_the_manual() -> None:
    """SDM 3A 12.12.4: not present, flush the TLBs, map with the new type, flush the caches."""
    body = f"pte p = none; request p; {TOLD}; pte p = uncached; {{}}; promise p"
    assert of(body.format("clflush p; fence"), "lfence") == "verified"
    assert of(body.format("fence"), "lfence") == LINE
    early = f"pte p = none; request p; {TOLD}; clflush p; pte p = uncached; promise p"
    assert of(early, "lfence") == "verified", "while it is not mapped nobody brings a line in"


def test_who_promises_before_the_lines_are_gone_promises_too_early() -> None:
    body = f"pte p = uncached; request p; {TOLD}; promise p; clflush p"
    assert of(body, "lfence") == LINE


def test_a_flush_of_lines_waits_in_the_store_buffer() -> None:
    """CLFLUSH is ordered with stores and fences: without one it may come after the promise."""
    body = f"pte p = uncached; request p; {TOLD}; clflush p; {{}}; promise p"
    assert of(body.format("fence"), "lfence") == "verified"
    assert of(body.format("lfence"), "lfence") == LINE
    assert of(body.format("sfence"), "lfence") == LINE
    assert of(body.format("lfence"), "lfence", head='  assume "stores=sc"\n') == "verified"


def test_an_access_through_the_old_type_is_stale_in_both_directions() -> None:
    """S4: the same frame under another type is not harmless, and no line need be there."""
    body = "pte p = uncached; request p; clflush p; fence; promise p"
    assert of(f"{body}; read p") in (LINE, REUSED)
    demand = '  assume "fills=demand"\n'
    assert of(f"read p; {body}; read p", head=demand) == REUSED
    back = "pte p = uncached; invlpg p; read p; pte p = cached locked; request p; promise p; read p"
    assert of(back) == REUSED
    back = "pte p = uncached; invlpg p; pte p = cached; request p; invlpg p; promise p; read p"
    assert of(back) == "verified"


def test_no_line_is_asked_for_while_the_page_is_cached() -> None:
    gone = f"pte p = uncached; request p; {TOLD}; clflush p; fence; promise p; pte p = cached"
    assert of(gone, "lfence") == "verified"


def test_memory_that_is_fresh_has_no_lines() -> None:
    """Another frame was never cached through a translation of this page."""
    change = "pte p = uncached; request p; invlpg p; promise p"
    assert of(change, region="vmalloc, absent") == "verified"
    assert of(f"pte p = fresh; {change}", region="vmalloc, absent") == LINE
    demand = '  assume "fills=demand"\n'
    gone = "pte p = none; invlpg p; pte p = {}; " + change
    assert of(f"read p; {gone.format('fresh')}", region="vmalloc", head=demand) == "verified"
    assert of(f"read p; {gone.format('cached')}", region="vmalloc", head=demand) == LINE


def test_what_rests_under_the_user_table_brings_nothing_in() -> None:
    """A CPU with the user CR3 loaded has no translation to use, and may hold lines from before."""
    head = '  features "pti pcid invpcid"\n'
    change = "pte p = uncached; request p; invlpg p; {}; promise p"
    user = "mov cr3, user noflush; flag = 1; mov cr3, kernel"
    var = "  var flag : 1 bit, shared, starts 0, user mapped\n"
    body = "await flag == 1; " + change
    assert of(body.format("clflush p; fence"), user, head=head + var) in (LINE, REUSED)
    stays = "mov cr3, user noflush; flag = 1; fence; await flag == 2; mov cr3, kernel; touch kernel"
    var = "  var flag : 2 bits, shared, starts 0, user mapped\n"
    assert of(body.format("clflush p; fence") + "; flag = 2", stays, head=head + var) == "verified"
    assert of(body.format("fence") + "; flag = 2", stays, head=head + var) == LINE
    late = stays.replace("mov cr3, kernel;", "mov cr3, kernel noflush; invpcid all-including-global;")
    assert of(body.format("clflush p; fence") + "; flag = 2", late, head=head + var) == LINE


def test_rights_and_types_of_the_same_page() -> None:
    body = f"pte p = less-rights; pte p = uncached; request p; {TOLD}; clflush p; fence; promise p"
    assert of(body, "lfence") == "verified"
    assert of(body.replace("clflush p; ", ""), "lfence") == LINE


def test_a_role_changes_the_type_of_its_range() -> None:
    text = (
        'litmus r\n  cpus "uc; isolated 0"\n  based on ipi\n\nuc\n  pte range = uncached\n  request range\n'
    )
    text += "  flush_kernel_now\n  {}\n  promise range\n"
    assert tc.litmus(text.format("clflush range\n  fence")).found == "verified"
    assert tc.litmus(text.format("fence")).found == LINE


def test_any_number_of_changes_is_verified() -> None:
    """Versions are renamed where rounds have no bound: the last one of the type cached is one that counts."""
    text = 'litmus r\n  cpus "uc*unbounded; isolated unbounded"\n  based on ipi\n  page p : direct map\n'
    text += "\nuc\n  pte p = uncached\n  request p\n  flush_kernel_now\n  {}\n  promise p\n  pte p = cached\n"
    text += "  request p\n  flush_kernel_now\n  promise p\n"
    for reduce in (True, False):
        assert tc.litmus(text.format("clflush p\n  fence"), reduce=reduce).found == "verified"
        assert tc.litmus(text.format("fence"), reduce=reduce).found == LINE


def test_a_condition_reads_the_type() -> None:
    text = 'litmus c\n  exists "pte(p) == {}"\n  page p : vmalloc\n\ncpu 0\n  pte p = uncached\n'
    assert tc.litmus(text.format("uncached")).found == "allowed"
    assert tc.litmus(text.format("initial")).found == "forbidden"


def test_the_run_says_what_happened() -> None:
    result = tc.litmus(CASEBOOK / "c43-lines-before-translations.litmus")
    assert "(brings in a line" in result.text
    assert "promised to be uncached" in " ".join(result.text.split())
    assert "stale_line (S14)" in result.text


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_the_cases_have_one_verdict_in_every_search(file: Path) -> None:
    assert len(CASES) == 4
    stated = tc.litmus(file).stated
    assert tc.litmus(file, reduce=False).found == stated
    if file.stem.startswith("c43"):
        assert explore_litmus(file.read_text(encoding="utf-8")).found == stated


def test_a_deferral_without_windows_is_one_for_types() -> None:
    """What c42 lacks: no moment under the kernel's table with the flag clear, or with a translation from before."""
    text = (CASEBOOK / "c42-type-changes-while-deferred.litmus").read_text(encoding="utf-8")
    text = text.replace(
        "  page p", "  var kernel_cr3_loaded : 1 bit, per cpu, starts 1, user mapped\n  page p"
    )
    enter = "\nto_kernel\n  kernel_cr3_loaded = 1\n  fence\n  mov cr3, kernel {}\n"
    leave = "\nto_user\n  mov cr3, user owed\n  kernel_cr3_loaded = 0\n"
    late = "\nto_user\n  kernel_cr3_loaded = 0\n  mov cr3, user owed\n"
    noflush = enter.format("noflush\n  invpcid all-including-global")
    assert tc.litmus(text + enter.format("flush") + leave).found == "verified"
    assert tc.litmus(text + enter.format("flush") + late).found == LINE
    assert tc.litmus(text + noflush + leave).found == LINE


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("table p = uncached", "a type of memory is that of a page"),
        ("pte p = uncacheable", "becomes none, fresh, less-rights, initial, uncached or cached"),
        ("clflush q", "q"),
        ("clflush", "neither an op nor a section"),
        ("wbinvd p", "`wbinvd p` is no op"),
    ],
)
def test_what_is_no_such_op_is_refused_with_its_place(line: str, said: str) -> None:
    with pytest.raises(tc.PolicyError, match=f":5:.*{said}"):
        tc.litmus(f"litmus a\n  page p : vmalloc\n\ncpu 0\n  {line}\n")


@pytest.mark.parametrize(
    ("head", "lines"),
    [
        ("", "table p = none"),
        ("", "walk p"),
        ('  var x : 1 bit, shared, starts 0\n  frames "p: x"\n', "read p"),
        ("  page q : vmalloc, in p\n", "read q"),
        ("", "migrate"),
    ],
)
def test_what_is_not_modelled_beside_it_is_refused(head: str, lines: str) -> None:
    text = f"litmus a\n  page p : vmalloc\n{head}\ncpu 0\n  pte p = uncached\n  {lines}\n\ncpu 1\n  fence\n"
    with pytest.raises(tc.TlbcoreError, match="beside a page that becomes uncached"):
        tc.litmus(text)


def test_a_policy_of_types_has_no_costs_and_no_promela() -> None:
    policy = tc.policies["ipi"].replace(name="uc", to_kernel=[op.clflush(), op.wbinvd()])
    load = tc.scenarios.syscall_heavy(duration_s=0.01)
    with pytest.raises(tc.PolicyError, match="not recorded"):
        tc.simulate(load, policy=policy)
    with pytest.raises(tc.TlbcoreError, match="lines of caches are not in the export"):
        policy.promela()


RETYPE = "pte p = uncached locked\n  request p\n"
ALL = "ipi others, h\n  invlpg p\n  await acks\n"
LINES = (
    "clflush p",
    "clflush p\n  fence",
    "wbinvd",
    "invlpg p",
    "request p\n  invlpg p\n  clflush p\n  promise p",
    f"request p\n  {ALL}  clflush p\n  promise p",
    f"request p\n  {ALL}  wbinvd\n  promise p",
    f"{RETYPE}  {ALL}  clflush p\n  fence\n  promise p",
    f"pte p = none\n  request p\n  {ALL}  pte p = uncached\n  clflush p\n  fence\n  promise p",
    "invpcid all-including-global",
    "invlpgb p\n  tlbsync",
    "mov cr3, kernel",
    "touch kernel",
    "read p",
    "request p",
    "promise p",
    "fence",
)
ENTRIES = ("uncached", "uncached", "cached", "none", "fresh", "less-rights", "initial")


def drawn(number: int) -> str:
    """A random text about a page that becomes uncached, or nearly, on one of two CPUs."""
    rng = random.Random(f"lines/{number}")

    def line() -> str:
        entry = f"pte p = {rng.choice(ENTRIES)}{rng.choice(('', ' locked'))}"
        return rng.choice((entry, entry, *LINES))

    region = rng.choice(("vmalloc", "direct map", "direct map"))
    more = rng.choice(("", "", ", global", ", absent"))
    head = f"litmus l{number}\n  page p : {region}{more}\n"
    head += rng.choice(
        ("", "", '  assume "stores=sc"\n', '  assume "fills=demand"\n', '  features "pcid invpcid"\n')
    )
    columns = [
        f"\ncpu {n}\n" + "".join(f"  {line()}\n" for _ in range(rng.randint(0 if n == 0 else 1, 2 - n)))
        for n in range(2)
    ]
    columns[0] += f"  {rng.choice((f'{RETYPE}  {ALL}', RETYPE, 'pte p = uncached'))}".rstrip() + "\n"
    columns[0] += rng.choice(("", "  clflush p\n  promise p\n", "  promise p\n"))
    handler = rng.choice(("invlpg p", "invlpg p", "invlpg p\n  wbinvd", "wbinvd", "clflush p\n  invlpg p"))
    return head + "".join(columns) + f"\nh\n  {handler}\n"


def explorers_agree(first: int, count: int, most: int) -> dict[str, int]:
    """Compare reduced, plain and second search; return how often which verdict was found."""
    seen: dict[str, int] = {}
    for number in range(first, first + count):
        text = drawn(number)
        try:
            _core.policy_code(text, "litmus", [])
        except tc.PolicyError:
            continue
        if "uncached" not in text:  # then neither types nor frames are followed
            continue
        plain, reduced = (tc.litmus(text, reduce=reduce, memory=1 << 20) for reduce in (False, True))
        if plain.found.startswith("inconclusive: mem") or reduced.found.startswith("inconclusive: mem"):
            continue
        kinds = {result.found.partition(":")[0] for result in (plain, reduced)}
        assert len(kinds) == 1, text
        if plain.found.startswith("inconclusive") or plain.states > most:
            continue
        slow = explore_litmus(text, limit=4 * most)
        if slow.status == "inconclusive":
            continue
        if slow.found != plain.found or reduced.found != plain.found:
            slow = explore_litmus(text, every=True)
            for result in (plain, reduced):
                assert result.found.removeprefix("violated: ") in slow.rules, (number, text, plain.text, slow)
        seen[plain.found] = seen.get(plain.found, 0) + 1
    return seen


def test_random_texts_of_types_come_to_the_same_in_every_search() -> None:
    seen = explorers_agree(0, 300, 600)
    assert sum(seen.values()) >= 40, seen
    assert {"verified", LINE, REUSED} <= seen.keys(), seen
    assert seen[LINE] >= 10, seen


@pytest.mark.slow
def test_many_random_texts_of_types_do() -> None:
    assert sum(explorers_agree(0, 5000, 10_000).values()) > 1000
