"""What is asked, of a policy and of its edited forms, and what the headline may say of it; with values by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.checker import search
from tlbcore.checker.question import (
    Bounds,
    Question,
    assumed,
    initiators_of,
    of_effect,
    programs_in,
    questions_in,
    request_of,
    worlds_of,
)
from tlbcore.checker.verdict import Counterexample, Step, Verdict

IPI, FIXED, TEXT = (tc.policies[name] for name in ("ipi", "coalesce-v7-fixed", "text-defer-v7"))
D0 = {"D": "none"}

# -- bounds and assumptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [tc.check, tc.repair, tc.necessary])
@pytest.mark.parametrize("value", [5, None, ["pti"], True], ids=repr)
def test_a_world_is_a_text(ask: Any, value: Any) -> None:
    with pytest.raises(
        tc.CheckError, match=r"world is a set of features such as 'nopti\+invlpgb': got "
    ) as said:
        ask("ipi", world=value)
    assert str(said.value).endswith(repr(value))


@pytest.mark.parametrize("value", [0, [], "", False, (), ["ab"], {1: 2}, {"D": 1}, {1: "D"}], ids=repr)
def test_assumptions_are_names_and_values_or_left_out(value: Any) -> None:
    with pytest.raises(tc.CheckError, match=r"assume is names and values, such as \{'D': 'recycled'\}: got "):
        assumed({"assume": value})
    assert assumed({"assume": None}) == assumed({}) == assumed({"assume": {}}) == {}
    assert assumed({"assume": {"D": "recycled"}}) == {"D": "recycled"}


@pytest.mark.parametrize(
    ("policy", "bounds", "said"),
    [
        (TEXT, {"pages": 2}, "pages=2 is about flushes, and text-defer-v7 is asked about syncs of text alone"),
        (TEXT, {"assume": {"D": "recycled"}}, "D=recycled is about flushes, and text-defer-v7 is asked about "),
        (TEXT, {"assume": {"N": "recycled"}}, "N=recycled is about flushes"),
        (TEXT, {"assume": {"range": "pages"}}, "range=pages is about flushes"),
        (FIXED, {"assume": {"T": "danger"}}, "T=danger is about patched text, and coalesce-v7-fixed is asked "),
        (FIXED, {"assume": {"N": "recycled"}}, "N=recycled is about NMIs and machine checks: give nmis or mces"),
        (FIXED, {"roles": "purge; isolated 1", "cpus": 3}, "cpus=3 contradicts roles="),
        (FIXED, {"roles": "purge; isolated 1", "entries": 2}, "roles say how often, as `isolated ENTRIES`"),
        (FIXED, {"roles": "purge; isolated 1", "rounds": 2}, "roles say how often, as `PROGRAM*ROUNDS`"),
        (FIXED, {"cpus": 1}, "cpus must be an integer from 2 to 5: got 1"),
        (FIXED, {"cpus": 6}, "cpus must be an integer from 2 to 5: got 6"),
        (FIXED, {"nmis": 8}, "nmis must be an integer from 0 to 7: got 8"),
        (FIXED, {"mces": 4}, "mces must be an integer from 0 to 3: got 4"),
        (FIXED, {"asids": 3}, "asids must be an integer from 1 to 2: got 3"),
        (FIXED, {"asids": 0}, "asids must be an integer from 1 to 2: got 0"),
        (FIXED, {"pages": 4}, "pages must be an integer from 1 to 3: got 4"),
        (FIXED, {"pages": 0}, "pages must be an integer from 1 to 3: got 0"),
        (FIXED, {"entries": 16}, "entries must be an integer from 0 to 15: got 16"),
        (FIXED, {"rounds": 0}, "rounds must be an integer from 1 to 15: got 0"),
        (FIXED, {"rounds": "many"}, "rounds must be an integer from 1 to 15 or unbounded: got 'many'"),
        (FIXED, {"memory": 0}, "memory must be an integer of at least 1: got 0"),
        (FIXED, {"threads": 65}, "threads must be an integer from 1 to 64: got 65"),
        (FIXED, {"threads": 0}, "threads must be an integer from 1 to 64: got 0"),
    ],
)  # fmt: skip
def test_what_nothing_depends_on_and_what_is_no_bound_is_refused(
    policy: tc.Policy, bounds: Any, said: str
) -> None:
    with pytest.raises(tc.CheckError) as error:
        tc.check(policy, world="pti", **bounds)
    assert said in str(error.value)


def test_a_request_has_the_bounds_and_what_is_left_out() -> None:
    asked = request_of(FIXED, {})
    bounds = {
        "cpus": 2, "nmis": 0, "mces": 0, "asids": 1, "pages": 1, "entries": 2, "rounds": 1, "memory": 8 << 30,
        "plain": False, "confirm": 0, "threads": 0, "roles": "", "world": "pti", "initiator": "purge",
        "beside": "", "about": "",
    }  # fmt: skip
    assert asked == {"text": FIXED.text, "file": FIXED.file, **bounds}
    most = Bounds(cpus=5, nmis=7, mces=3, asids=2, pages=3, entries="unbounded", rounds="unbounded", memory=1)
    asked = request_of(TEXT, most, reduce=False, threads=64)
    unbounded = {"entries": 255, "rounds": 255, "plain": True, "threads": 64, "initiator": "text_poke"}
    assert {name: asked[name] for name in unbounded} == unbounded
    assert {name: asked[name] for name in ("cpus", "nmis", "mces", "asids", "pages", "memory")} == {
        "cpus": 5, "nmis": 7, "mces": 3, "asids": 2, "pages": 3, "memory": 1,
    }  # fmt: skip
    asked = request_of(FIXED, {"entries": 15, "rounds": 15})
    assert (asked["entries"], asked["rounds"]) == (15, 15)
    with pytest.raises(
        TypeError, match="'a' is no bound; these are: cpus, nmis, mces, asids, pages, entries"
    ):
        request_of(FIXED, {"z": 1, "a": 1})  # type: ignore[typeddict-unknown-key]


def test_one_cpu_may_be_all_there_are_if_a_role_names_it() -> None:
    assert request_of(IPI, {"roles": "purge", "cpus": 1})["cpus"] == 1
    assert request_of(IPI, {"roles": "purge, isolated 1 ;", "cpus": 2})["roles"] == "purge, isolated 1 ;"


@pytest.mark.parametrize(
    ("roles", "names"),
    [
        ("purge; mine*3; isolated yours; isolated 2", ("purge", "mine", "yours")),
        ("purge, a", ("purge", "a")),
        ("", ()),
        (5, ()),
    ],
)
def test_programs_are_what_roles_name(roles: Any, names: tuple[str, ...]) -> None:
    assert programs_in({"roles": roles}) == names


@pytest.mark.parametrize(
    ("bounds", "left"),
    [({"nmis": 0}, True), ({"nmis": 0, "mces": 0}, True), ({"nmis": 0, "mces": 1}, False), ({}, False),
     ({"nmis": 1}, False)],
)  # fmt: skip
def test_bodies_of_nmis_are_left_out_where_none_comes(bounds: Any, left: bool) -> None:
    given = {"N": "recycled", "D": "none"}
    kept, note = of_effect(bounds, given)
    assert kept == (D0 if left else given)
    assert note == (
        ["N=recycled is about NMIs and machine checks, and there are none: left out."] if left else []
    )
    assert of_effect({"nmis": 0}, {"N": "none"}) == ({"N": "none"}, [])


def test_what_a_policy_defers_is_what_its_table_asks_about() -> None:
    assert [initiators_of(p.text, p.file) for p in (IPI, TEXT, tc.policies["latr"])] == [
        ("purge",), ("text_poke",), ("flush_mm",),
    ]  # fmt: skip
    assert worlds_of(FIXED, {}) == [("pti", ())]
    assert worlds_of(FIXED, {"world": "nopti"}) == [("nopti", ("pti",))]
    assert worlds_of(IPI, {}) == [("pti", ()), ("nopti", ())]


def cases(cpus: int, asids: int, **given: str) -> list[tuple[str, int, int, str | None, str]]:
    bounds = Bounds(cpus=cpus, asids=asids)
    asked = questions_in(IPI, "pti", (), bounds, {**D0, **given}, reduce=True, threads=None)
    return [
        (r["initiator"], r["cpus"], r["asids"], q.assume.get("range"), r["about"])
        for q in asked
        for r in [q.request]
    ]


def test_mainline_is_asked_about_frees_of_tables_in_both_forms_with_two_asids() -> None:
    about, small = "frees of page tables", "frees of page tables, 2 CPUs with 2 ASIDs"
    purge = "purges of vmalloc"
    assert cases(2, 1) == [
        ("purge", 2, 1, None, purge), ("table_free", 2, 2, "pages", about), ("table_free", 2, 2, "full", about),
    ]  # fmt: skip
    assert cases(3, 1) == [
        ("purge", 3, 1, None, purge),
        ("table_free", 3, 1, "pages", about), ("table_free", 3, 1, "full", about),
        ("table_free", 2, 2, "pages", small), ("table_free", 2, 2, "full", small),
    ]  # fmt: skip
    assert cases(3, 2, range="full") == [("purge", 3, 2, "full", purge), ("table_free", 3, 2, "full", about)]


# -- edited forms are asked all that the policy is -----------------------------------------------------------


def test_an_order_that_only_frees_of_tables_need_is_needed() -> None:
    """With INVLPG before the interrupts, the interrupted CPU's walk may still cache from the freed table's entry.

    Of purges alone it was said that the order is not needed within these bounds.
    """
    rows = {need.what: need for need in tc.necessary("ipi", world="pti", entries=1)}
    order = rows["the order `ipi targets, flush_handler` before `flush_here`"]
    assert (order.status, order.needed, order.rule) == ("violated", True, "freed_table_walk")
    assert rows["no `invlpg range`"].rule == rows["no `owe others`"].rule == "freed_table_walk"
    assert rows["no `await acks`"].needed


def test_forms_of_a_policy_stand_on_the_version_of_the_world() -> None:
    needs = tc.necessary("ipi", world="nopti+invlpgb@7.3", entries=1)
    assert "world nopti+invlpgb of Linux 7.3" in needs.sentence
    found = {need.what: need.rule for need in needs if need.needed}
    assert found["no `tlbsync`"] is not None
    assert not any("ipi targets" in what for what in found), "nobody is interrupted there"
    fixed = tc.repair("pending-bit-plain", edits=1, world="pti@7.3")
    assert {repair.policy.linux for repair in fixed} == {"7.3"}


def test_a_repair_passes_in_every_world_that_is_asked_about() -> None:
    everywhere, pti = (
        {repair.edits for repair in tc.repair("pending-bit-plain", edits=1, **where)}
        for where in ({}, {"world": "pti"})
    )
    assert everywhere < pti
    assert ("to_kernel: insert `flush_all_here` before `mov cr3, kernel noflush`",) in pti - everywhere


@pytest.mark.parametrize(("ask", "flush"), [(tc.necessary, "flush_kernel_now"), (tc.repair, "lfence")])
def test_roles_may_name_sections_that_nothing_else_uses(ask: Any, flush: str, tmp_path: Path) -> None:
    file = tmp_path / "own.policy"
    body = (
        f"mine\n  pte range = none locked\n  request range\n  {flush}\n  promise range\n  pte range = fresh\n"
    )
    file.write_text(f'policy own\n  "own"\n  based on ipi\n\n{body}', encoding="utf-8")
    found = ask(file, roles="mine; isolated 1", assume=D0, world="pti")
    assert found.policy.name == "own"
    if ask is tc.necessary:
        assert [(need.section, need.needed) for need in found if need.what == f"no `{flush}`"] == [
            ("mine", True)
        ]


# -- the core ---------------------------------------------------------------------------------------------------


def core_of(
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    *,
    nmis: int = 0,
    mces: int = 0,
    world: str = "pti",
    **assume: str,
) -> Any:
    """Return the core of a made-up search, whose answer is a function of assumptions and counts."""

    def check_run(request: dict[str, Any], progress: object) -> dict[str, str]:
        assert (request["trace"], request["confirm"]) == (False, 0)
        return {"status": answer(dict(request["assume"]), request["nmis"], request["mces"])}

    monkeypatch.setattr(_core, "check_run", check_run)
    request = {"nmis": nmis, "mces": mces, "trace": True, "confirm": 9, "world": world}
    question = Question(name="p", request=request, assume=assume)
    core, needed, unsure = search._core_of(question, None)
    return core, needed.assume, (needed.request["nmis"], needed.request["mces"]), unsure


def needs(**wanted: str) -> Any:
    """Violated as long as each of these is as it is wanted, by default as a machine is."""
    usual = {name: values[0] for name, values in _core.check_assumptions()}
    return lambda assume, *_: (
        "violated" if all(assume.get(n, usual[n]) == v for n, v in wanted.items()) else "verified"
    )


LESS = {"fills": "demand", "stores": "sc", "invpcid": "publishes", "tce": "off"}


@pytest.mark.parametrize(
    ("wanted", "given", "core"),
    [
        ({}, {}, ()),
        ({"fills": "speculative"}, {}, ("fills at any time",)),
        ({"stores": "buffered"}, {}, ("store buffers",)),
        ({"stores": "buffered", "interrupts": "keep"}, {"interrupts": "keep"},
         ("store buffers", "delivery of interrupts publishes nothing")),
        ({"stores": "buffered"}, {"interrupts": "keep"}, ("store buffers",)),
        ({"stores": "buffered", "broadcast": "keeps"}, {},
         ("store buffers", "broadcasts leave the stores of the CPUs they reach in their buffers")),
        ({"invpcid": "unordered"}, {}, ("INVPCID does not publish",)),
        ({"tce": "on"}, {}, ("INVLPG keeps the upper entries of other addresses (AMD's TCE)",)),
        ({"D": "recycled"}, {"D": "recycled"}, ("code in the danger zone touches recycled memory",)),
        ({"D": "directmap"}, {"D": "directmap"}, ("code in the danger zone touches the direct map",)),
        ({"N": "directmap"}, {"N": "directmap"}, ("NMI bodies touch the direct map",)),
        ({"N": "recycled"}, {"N": "recycled"}, ("NMI bodies touch recycled memory",)),
        ({"T": "danger"}, {"T": "danger"}, ("code in .noinstr.text is patched",)),
        ({"range": "pages"}, {"range": "pages"}, ("ranges are flushed page by page",)),
        ({"gs": "faults"}, {"gs": "faults"}, ("a %gs-relative access under the user's GSBASE ends the run",)),
        ({}, {"D": "recycled", "N": "recycled", "T": "noinstr", "range": "pages", "gs": "faults"}, ()),
    ],
)  # fmt: skip
def test_a_core_has_what_the_run_needs_and_no_more(
    monkeypatch: pytest.MonkeyPatch, wanted: dict[str, str], given: dict[str, str], core: tuple[str, ...]
) -> None:
    found, assume, _, unsure = core_of(monkeypatch, needs(**wanted), world="nopti+invlpgb", **given)
    assert found == core
    assert unsure == []
    off = {"D": "none", "N": "none", "T": "instr", "range": "full", "gs": "works"}
    usual = {name: values[0] for name, values in _core.check_assumptions()}
    for name, value in {**LESS, **{n: off[n] for n in given if n in off}}.items():
        assert assume.get(name, usual[name]) == wanted.get(name, value), name


@pytest.mark.parametrize(
    ("world", "asked"),
    [("nopti+invlpgb", True), ("nopti+rar", True), ("pti", False), ("pti+noinvlpgb", False)],
)
def test_whether_broadcasts_drain_is_asked_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, world: str, asked: bool
) -> None:
    core, assume, *_ = core_of(monkeypatch, needs(stores="buffered"), world=world)
    assert core == ("store buffers",)
    assert assume.get("broadcast") == ("drains" if asked else None)


@pytest.mark.parametrize(
    ("least", "core", "left"),
    [
        ((0, 0), (), (0, 0)),
        ((1, 0), ("an NMI",), (2, 0)),
        ((0, 1), ("a machine check",), (0, 1)),
        ((1, 1), ("an NMI", "a machine check"), (2, 1)),
    ],
)
def test_a_core_says_whether_it_takes_an_nmi(
    monkeypatch: pytest.MonkeyPatch, least: tuple[int, int], core: tuple[str, ...], left: tuple[int, int]
) -> None:
    def answer(_: object, nmis: int, mces: int) -> str:
        return "violated" if nmis >= least[0] and mces >= least[1] else "verified"

    found, _, counts, _ = core_of(monkeypatch, answer, nmis=2, mces=1)
    assert (found, counts) == (core, left)


def test_where_a_limit_is_met_without_it_nobody_knows_whether_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(assume: dict[str, str], nmis: int, _: int) -> str:
        return "inconclusive" if assume.get("stores") == "sc" or not nmis else "violated"

    core, assume, counts, unsure = core_of(monkeypatch, answer, nmis=1)
    assert core == ("store buffers", "an NMI")
    assert unsure == ["store buffers", "an NMI"]
    assert "stores" not in assume
    assert counts == (1, 0)


@pytest.mark.parametrize(("memory", "said"), [(3 << 20, True), (1 << 30, False)])
def test_the_sentence_says_what_a_limit_left_open(memory: int, said: bool) -> None:
    """A violation is found long before its search ends; without buffers there is none, so that search needs more."""
    roles = {"roles": "purge; purge; isolated 2", "world": "pti", "threads": 1}
    verdict = tc.check("coalesce-v7", memory=memory, assume=D0, **roles)
    assert (verdict.status, verdict.core) == ("violated", ("store buffers",))
    assert (
        verdict.sentence.endswith(
            " Whether it needs the following is not known, a limit was met: store buffers."
        )
        is said
    )


def run_ending(what: str) -> Counterexample:
    step = Step(number=1, cpu=0, what=what, source=None, changes=(), shown=True)
    return Counterexample(
        rule="freed_table_walk", schedule="", steps=(step,), lanes=(), closing="", text="", kernel="", assume={},
        _request={}, _store_buffer=0,
    )  # fmt: skip


WALK, KNOWN, WINDOW = "a speculative walk suffices", "an access in the window is known", "window exists"


@pytest.mark.parametrize(
    ("core", "what", "grade"),
    [
        (("fills at any time",), "(walk caches va)", WALK),
        (("fills at any time",), "(fetches head)", WALK),
        (("fills at any time",), "(writes back d)", WALK),
        (("fills at any time",), "touch stack", KNOWN),
        ((), "(walk caches va)", KNOWN),
        (("store buffers",), "(walk caches va)", KNOWN),
        (("fills at any time", "NMI bodies touch the direct map"), "(walk caches va)", WINDOW),
        (("code in the danger zone touches recycled memory",), "touch danger", WINDOW),
        (("code in .noinstr.text is patched",), "run text", WINDOW),
        (("ranges are flushed page by page", "an NMI"), "touch danger", KNOWN),
    ],
)
def test_a_grade_follows_from_the_core_and_the_last_move(
    core: tuple[str, ...], what: str, grade: str
) -> None:
    assert search._grade(core, run_ending(what)) == grade


def test_a_grade_without_a_run_is_of_the_core_alone() -> None:
    assert search._grade(("fills at any time",), None) == KNOWN
    assert search._grade(("fills at any time",), replace(run_ending("x"), steps=())) == KNOWN


def test_a_verdict_names_the_form_of_the_flush_and_of_the_rule_that_it_needs() -> None:
    nopti = tc.check("ipi", world="nopti")
    assert nopti.core == ("ranges are flushed page by page",)
    assert "page by page" not in " ".join(tc.check("ipi", world="pti").core)
    rights = FIXED.replace(name="rights", flush_kernel_now="flush_kernel_range")
    found = tc.check(rights, roles="set_memory; isolated 1", nmis=1, assume={"D": "none", "N": "directmap"})
    assert not any("recycled" in what for what in found.core)


# -- the headline -----------------------------------------------------------------------------------------------


def test_a_headline_is_not_confirmed_where_its_cases_are_not() -> None:
    """Half a million unreduced states are spent on the first of eight cases."""
    verdict = tc.check("latr")
    left = [case for case in verdict.cases if "Not confirmed unreduced." in case.sentence]
    assert (len(verdict.cases), len(left)) == (8, 7)
    assert "Confirmed unreduced (" in verdict.sentence
    assert "Of the 8 cases, 7 were not confirmed unreduced." in verdict.sentence
    for name in ("latr", "coalesce-v7-fixed"):
        assert "cases" not in tc.check(name, confirm=False, world="pti").sentence, "which says so of each"
    assert "were not confirmed" not in tc.check("coalesce-v7-fixed").sentence


def case(sentence: str, **witnesses: bool) -> Verdict:
    return Verdict(
        policy="p", status="verified", sentence=sentence, world="pti", inert=(), assume={}, states=1, transitions=1,
        depth=1, counterexample=None, grade=None, witnesses=witnesses, wrong_gs=None, bits_per_cpu=(), bits_shared=0,
    )  # fmt: skip


def test_what_was_seen_was_seen_in_some_case() -> None:
    cases = (case("a", x=False, y=True), case("b", x=True, z=False))
    assert search._seen(cases[0], cases) == {"x": True, "y": True, "z": False}
    assert search._unconfirmed(case("Not confirmed unreduced."), (case("Not confirmed unreduced."),)) == []
    assert search._unconfirmed(case("Confirmed"), (case("Not confirmed unreduced."), case(""))) == [
        "Of the 2 cases, 1 were not confirmed unreduced."
    ]
    assert search._unconfirmed(case("Confirmed"), (case(""), case(""))) == []


def test_never_seen_holds_of_every_question() -> None:
    """`invlpgb` broadcasts purges, and interrupts for rights of the direct map."""
    verdict = tc.check("invlpgb", world="nopti+invlpgb", entries=1)
    interrupted = "a CPU was interrupted for a flush"
    seen = {c.asked: c.witnesses[interrupted] for c in verdict.cases if interrupted in c.witnesses}
    assert seen["rights of the direct map"]
    assert not seen["purges of vmalloc"]
    assert verdict.witnesses[interrupted]
    assert "Never seen" not in str(verdict) or interrupted not in str(verdict)


def test_a_hypothesis_that_is_violated_without_it_is_no_window() -> None:
    broken, kept = tc.check("coalesce-v7"), tc.check("ct-late", world="pti")
    assert broken.hypothesis is not None
    assert kept.hypothesis is not None
    assert (broken.hypothesis.status, broken.hypothesis.grade) == ("violated", None)
    assert (kept.status, kept.hypothesis.status, kept.hypothesis.grade) == ("verified", "violated", WINDOW)


def test_every_world_of_a_version_may_be_asked_for() -> None:
    every = tc.check("pending-bit", world="@7.3", entries=1)
    assert [case.world for case in every.cases] == ["pti", "nopti"] or "nopti+invlpgb" in {
        case.world for case in every.cases
    }
    assert all("of Linux 7.3" in case.sentence for case in every.cases)


@pytest.mark.parametrize(
    ("cpus", "states", "said"),
    [
        # What a third CPU multiplies by: 14, 52, 89; each later one: 10, 41, 64.
        (3, 100, "about 5e+03, between 1e+03 and 9e+03."),
        (4, 100, "about 2e+05, between 1e+04 and 6e+05."),
        (5, 124, "about 1e+07, between 2e+05 and 5e+07."),
    ],
)
def test_an_estimate_is_the_small_scope_times_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, cpus: int, states: int, said: str
) -> None:
    asked: list[int] = []
    small = replace(case("s"), states=states)
    answers = iter((small, replace(small, status="violated"), replace(small, any_number=True)))

    def answer_to(question: Question, progress: None) -> Verdict:
        asked.append(question.request["cpus"])
        return next(answers)

    monkeypatch.setattr(search, "answer_to", answer_to)
    question = Question(name="p", request={"cpus": cpus}, assume={})
    assert search._estimate(question, None) == (
        f"Estimate: 2 CPUs have {states} states; by what further CPUs multiply them by elsewhere (measured, without"
        f" NMI), {said}"
    )
    assert [search._estimate(question, None) for _ in range(2)] == ["", ""]
    assert asked == [2, 2, 2]


@pytest.mark.parametrize(
    ("bounds", "status", "estimated"),
    [
        ({"cpus": 3}, "inconclusive", True),
        ({"cpus": 3}, "verified", False),
        ({"cpus": 2}, "inconclusive", False),
        ({"roles": "purge; isolated 1; isolated 1"}, "inconclusive", False),
        ({"roles": "purge; isolated 1; isolated 1"}, "verified", False),
    ],
)
def test_what_is_estimated_is_a_scope_of_more_cpus_that_could_not_be_held(
    monkeypatch: pytest.MonkeyPatch, bounds: Any, status: str, estimated: bool
) -> None:
    answered = replace(case("Sentence."), status=status, asked="purges")
    monkeypatch.setattr(search, "answers_to", lambda asked, *_, **__: [answered for _ in asked])
    monkeypatch.setattr(search, "_estimate", lambda question, _: f"Of {question.request['cpus']}.")
    sentence = tc.check(FIXED, **bounds).sentence
    assert sentence.startswith("Sentence. Of 3. Asked" if estimated else "Sentence. Asked")


@pytest.mark.parametrize(
    ("found", "worst"),
    [
        (("verified", "verified"), "verified"),
        (("inconclusive", "verified"), "inconclusive"),
        (("verified", "inconclusive"), "inconclusive"),
        (("inconclusive", "violated"), "violated"),
        (("violated", "inconclusive"), "violated"),
        (("verified", "violated"), "violated"),
    ],
)
def test_the_headline_is_the_worst_of_the_cases(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, str], worst: str
) -> None:
    """Of `pending-bit` there are two, one for each world."""

    def answers_to(asked: list[Question], *_: Any, **__: Any) -> list[Verdict]:
        return [
            replace(
                case(f"{status} in {q.request['world']}."), status=status, world=q.request["world"], asked="a"
            )
            for q, status in zip(asked, found, strict=True)
        ]

    monkeypatch.setattr(search, "answers_to", answers_to)
    monkeypatch.setattr(search, "_core_of", lambda question, _: (("x",), question, ["y", "z"]))
    verdict = tc.check("pending-bit", assume=D0)
    where = ("pti", "nopti")[found.index(worst)]
    assert (verdict.status, verdict.world) == (worst, where)
    assert tuple(c.status for c in verdict.cases) == found
    unsure = (
        " Whether it needs the following is not known, a limit was met: y; z." if worst == "violated" else ""
    )
    more = " The same holds in world nopti." if worst == "verified" else ""
    assert verdict.sentence == f"{worst} in {where}.{more} Asked about: a.{unsure}"
    assert (verdict.core, verdict.grade) == ((("x",), KNOWN) if worst == "violated" else ((), None))
