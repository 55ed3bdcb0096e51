"""x86-TSO: whole sets of ends against an explorer of one page, and the shapes of the field with their verdicts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.tso import LOCATIONS, Op, draw, ends, herd_text, registers, text

import tlbcore as tc

FOLDER = Path(__file__).parents[1] / "litmus" / "tso"
FORBIDDEN = {
    "MP", "S", "LB+regs", "2+2W", "WRC", "WWC", "ISA2", "IRIW", "3.LB", "3.2W", "Z6.3", "SB+xchgs", "SB+lock-other",
    "R+po+mfence", "RWC+po+mfence", "3.SB+mfences", "CoWW", "CoRR", "CoRW1", "CoRW2", "CoWR", "n4", "n5", "n7+mfence",
    "IRIW+xchgs", "MP+xchg+po", "inc-twice", "bts-once", "cas-once", "lb", "sb-mfences", "sb-mov-cr3", "sb-sc",
}  # fmt: skip


def found(test: str, *, reduce: bool = True) -> set[tuple[tuple[str, int], ...]]:
    result = tc.litmus(test, ends=True, reduce=reduce)
    assert result.complete
    assert result.ends is not None
    return {tuple(sorted((name, int(value)) for name, value in end.items())) for end in result.ends}


def compare(seeds: range) -> None:
    for seed in seeds:
        program = draw(seed)
        assert found(text(program)) == ends(program), text(program)


def test_drawn_programs_have_the_ends_that_x86_tso_gives_them() -> None:
    compare(range(1500))


@pytest.mark.slow
def test_many_more_drawn_programs_do() -> None:
    compare(range(1500, 30_000))


def test_drawn_programs_have_the_same_ends_without_reductions() -> None:
    for seed in range(60):
        program = draw(seed)
        assert found(text(program), reduce=False) == ends(program), text(program)


def test_a_drawn_program_is_the_same_test_in_herds_language() -> None:
    for seed in range(300):
        program = tuple(tuple(op for op in column if op.kind != "cas") for column in draw(seed))
        kept = ("load", "xchg", "add")
        names = {
            f"{cpu}:{op.register}": f"{cpu}:{('EBX', 'ECX', 'EDX', 'ESI')[n]}"
            for cpu, column in enumerate(program)
            for n, op in enumerate(column)
            if op.kind in kept
        }
        wanted = {
            tuple(sorted((names.get(name, name), v) for name, v in end if name in LOCATIONS or name in names))
            for end in ends(program)
        }
        assert found(herd_text(program)) == wanted, herd_text(program)


def test_draws_cover_every_op_and_width() -> None:
    drawn = [draw(seed) for seed in range(250)]

    assert {op.kind for program in drawn for column in program for op in column} == {
        "store", "load", "fence", "nop", "xchg", "add", "or", "and", "xor", "bts", "btr", "btc", "cas",
    }  # fmt: skip
    assert {len(program) for program in drawn} == {2, 3, 4}
    assert sum(len(ends(program)) > 3 for program in drawn) > 100
    assert sum(bool(registers(program)) for program in drawn) > 200


def test_the_small_explorer_knows_store_buffering() -> None:
    sb = (
        (Op("store", "x", value=1), Op("load", "y", "a")),
        (Op("store", "y", value=1), Op("load", "x", "a")),
    )
    seen = {tuple(dict(end)[r] for r in ("0:a", "1:a")) for end in ends(sb)}

    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_shapes_of_the_field_have_their_known_verdicts() -> None:
    files = {file.stem: file for file in FOLDER.glob("*.litmus")}
    results = {name: tc.litmus(file) for name, file in files.items()}

    assert len(files) >= 45
    assert {name for name, result in results.items() if result.found == "forbidden"} == FORBIDDEN
    assert all(result.found in ("allowed", "forbidden") for result in results.values())
    for name, file in files.items():
        said = re.search(r'exists "(.*)"', file.read_text())
        assert said is not None
        if 'assume "' in file.read_text():
            continue
        # Every end at once gives the same answer, and the condition's opposite holds in all of them or not.
        assert tc.litmus(file, ends=True).found == results[name].found, name
        opposite = file.read_text().replace(f'exists "{said[1]}"', f'forall "not ({said[1]})"')
        assert (tc.litmus(opposite).found == "verified") == (results[name].found == "forbidden"), name
