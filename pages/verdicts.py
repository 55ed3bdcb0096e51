"""`docs/verdicts.md`, `docs/litmus.md` and `docs/mutants.md`, from the policy table, the checker and the tests.

`python -m pages.verdicts` in a checkout writes all three, which takes minutes; naming one of them writes that
one. Tests hold them against what is computed.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages.mutants import _assumed, _covers, arguments, mutants_markdown, score
from tlbcore import _core
from tlbcore._output.worlds import LEGEND, heading
from tlbcore.checker import Cell, Row, check, verdict_table, world_table
from tlbcore.checker.question import asked_of, tried
from tlbcore.checker.table import INVPCID, row_request
from tlbcore.policy import policies

_INTRO = """# Verdicts

Written by `python -m pages.verdicts`; held against `tlbcore check --all` and the policy table by a test. What
the words, worlds and assumptions mean: [checking](checking.md).

*verified* means: no violation in any interleaving of 2 CPUs (one housekeeping CPU that purges once or patches one
instruction, one isolated CPU that goes to user mode and enters twice), 1 page and, in the columns with an NMI, at
most one of them; store buffers exact; not modelled: hotplug, SMM, TLBs shared by SMT siblings, guests,
top-level entries that some mm lacks. Larger scopes are unexplored. *violated* always comes with a run, which
`tlbcore check` prints.

The headline of `tlbcore check` is the column with D=none, in the worst world and, with an NMI, for the worse N.
D=recycled is what no kernel does today: an access to recycled memory on its entry and exit paths, which a future change
might make.

Each cell about flushes stands for four verdicts: 1 or 2 ASIDs, INVPCID publishing earlier stores or not. It shows
the one for 1 ASID and an INVPCID that does not publish, and what differs from it.
"""

_FLUSH_COLUMNS = (
    ("no NMI, D=none", 2, 0, "none", "none"),
    ("no NMI, D=recycled", 2, 0, "recycled", "none"),
    ("NMI, D=N=none", 2, 1, "none", "none"),
    ("NMI, D=none, N=recycled", 2, 1, "none", "recycled"),
    ("NMI, D=recycled, N=none", 2, 1, "recycled", "none"),
    ("NMI, D=N=recycled", 2, 1, "recycled", "recycled"),
    ("3 CPUs, D=none", 3, 0, "none", "none"),
    ("3 CPUs, D=recycled", 3, 0, "recycled", "none"),
)
_USER_QUESTIONS = (
    "flushes of user memory",
    "flushes of user memory, lazy CPUs",
    "frees of user page tables",
    "frees of user page tables, lazy CPUs",
)
_TEXT_COLUMNS = tuple(
    (f"{'NMI' if nmis else 'no NMI'}, T={text}", nmis, text)
    for nmis in (0, 1)
    for text in tried("text_poke")["T"]
)


def verdicts_markdown(rows: Sequence[Row] | None = None, by_world: str | None = None) -> str:
    """Return the text of `docs/verdicts.md`; `by_world` is the part with the table of worlds, if that is known."""
    rows = verdict_table() if rows is None else rows
    worlds = _worlds(rows)
    out = [_INTRO, worlds_markdown(world_table()) if by_world is None else by_world]
    for world in dict.fromkeys(row.world for row in rows if row.defers == "flush"):
        out.append(f"## Flushes of the kernel range, world {world}\n")
        table = [
            [
                f"`{name}`",
                *(_cell([r for r in rows if _is(r, name, world, column)]) for column in _FLUSH_COLUMNS),
            ]
            for name in policies
            if "flush" in policies[name].defers and world in worlds[name]
        ]
        out.append(_table(["policy", *(c[0] for c in _FLUSH_COLUMNS)], table))
        inert = [f"`{name}`" for name, p in policies.items() if world == "nopti" and "pti" in p.needs]
        out.append(f"\nInert there, so that mainline runs: {', '.join(inert)}.\n" if inert else "")
    out.append("## Syncs of text patching\n")
    out.append(
        "T is where an instruction may stand that is patched at run time: in instrumentable code only, also between "
        "the CR3\nswitch and the first instrumentable code (`danger`), or anywhere in `.noinstr.text`.\n"
    )
    table = []
    for name, world in [(n, w) for n in policies if "sync" in policies[n].defers for w in worlds[n]]:
        of = {(r.nmis, r.text): r for r in rows if (r.policy, r.world, r.defers) == (name, world, "sync")}
        table.append([f"`{name}`", world, *(of[nmis, text].status for _, nmis, text in _TEXT_COLUMNS)])
    out.append(_table(["policy", "world", *(c[0] for c in _TEXT_COLUMNS)], table))
    out.append("\n" + _user_ranges())
    out.append("\n## Reasons\n")
    out.append(
        "For each violated policy the shortest run that breaks it, under the fewest assumptions: what happened on the "
        "isolated\nCPU after which of its ops.\n"
    )
    for name in policies:
        out += [f"- `{name}`, {_within(row)}: {_reason(row)}" for row in _weakest(rows, name)]
    out.append("\n## Witnesses\n")
    out.append(
        "A pass that saw nothing says nothing. For each policy that is verified without an NMI under some assumptions: "
        "what\nnever happened in that search (the harshest such one). `none` means that every witness was seen.\n"
    )
    table = []
    for name in worlds:
        home = [r for r in rows if r.policy == name and r.world == worlds[name][0]]
        verified = [r for r in home if r.status == "verified" and r.nmis == 0]
        if verified:
            row = max(
                (r for r in verified if (r.cpus, r.asids) == (2, 1)), key=lambda r: (_harsh(r), r.states)
            )
            table.append([f"`{name}`", _within(row), "; ".join(row.unseen) or "none", str(row.states)])
    out.append(_table(["policy", "within", "never seen", "states"], table))
    out.append("\n## Policies\n")
    out.append("`tlbcore policy show NAME` prints the text.\n")
    table = [
        [
            f"`{n}`",
            p.doc,
            "; ".join(p.source),
            ", ".join(p.needs) or "nothing",
            " ".join(p.limits) or "none stated",
        ]
        for n, p in policies.items()
    ]
    out.append(_table(["policy", "what", "source", "needs", "limits"], table))
    return "\n".join(out) + "\n"


def worlds_markdown(cells: Sequence[Cell]) -> str:
    """Return the part with every policy in every world and version: the table that `check --all` prints."""
    out = [
        "## Policies by worlds and versions\n",
        "What `tlbcore check NAME --world WORLD --kernel-version VERSION` says, with and without `--nmis 1`, of "
        "everything that\nthe policy is asked. `tlbcore check --all` prints this table. The worlds are `pti`, `nopti`, "
        "`pti+nopcid`, `nopti+invlpgb`\nand `nopti+fred`.\n",
    ]
    out += [f"- `{word}`: {meaning}" for word, meaning in LEGEND.items()]
    columns = list(dict.fromkeys((cell.world, cell.linux) for cell in cells))
    words = {(cell.policy, cell.world, cell.linux): cell.word for cell in cells}
    names = list(dict.fromkeys(cell.policy for cell in cells))
    heads = ["policy", *(f"{heading(world)} {linux}" for world, linux in columns)]
    out.append("")
    out.append(_table(heads, [[f"`{name}`", *(words[name, *c] for c in columns)] for name in names]))
    out.append("")
    for needs in dict.fromkeys(cell.inert for cell in cells if cell.inert):
        inert = [cell for cell in cells if cell.inert == needs]
        where = ", ".join(f"`{world}`" for world in dict.fromkeys(cell.world for cell in inert))
        which = ", ".join(f"`{name}`" for name in dict.fromkeys(cell.policy for cell in inert))
        out.append(f"- Inert in {where}, for they need {needs}: {which}.")
    return "\n".join(out) + "\n"


def _user_ranges() -> str:
    """Return the part about policies that replace flushes of user ranges: what `check` says of each question."""
    out = [
        "## Flushes of user ranges\n",
        "One CPU unmaps a page of a process, or frees a page table of it; another one runs the process and leaves it, "
        "or goes\nlazy. A cell is the worst of all worlds, without and with one NMI; what a policy does not replace "
        "it is not asked.\n`tlbcore check NAME` prints the runs.\n",
    ]
    table = []
    for name, policy in policies.items():
        if not any(
            initiator.startswith("flush_mm") for initiator, _, _ in asked_of(policy.text, policy.file)
        ):
            continue
        calm, nmi = judged_by_question(name), judged_by_question(name, nmis=1)
        cells = []
        for about in _USER_QUESTIONS:
            one, other = calm.get(about, "not asked"), nmi.get(about, "not asked")
            cells.append(one if one == other else f"{one}, {other} with an NMI")
        table.append([f"`{name}`", *cells])
    out.append(_table(["policy", *_USER_QUESTIONS], table))
    return "\n".join(out) + "\n"


def judged_by_question(name: str, nmis: int = 0) -> dict[str, str]:
    """Return the worst status of a built-in policy by what it was asked about."""
    worst: dict[str, str] = {}
    for case in check(name, nmis=nmis).cases:
        if case.assume.get("D", "none") == "none" and worst.get(case.asked, "verified") == "verified":
            worst[case.asked] = case.status
    return worst


def litmus_markdown(folder: Path) -> str:
    """Return the text of `docs/litmus.md`: what each file in `folder` says of itself."""
    titles = {
        "history": "Historical bugs, each as a pair: the buggy form violated, the fixed one verified",
        "contexts": "Memory contexts: the kernel's own programs, and edits of single steps of them",
        "series": "The scenarios of the series",
        "tso": "x86-TSO",
        "counts": "Exact numbers of states",
        "x86t_elt": "x86 transistency: the published verdicts of TransForm and COATCheck",
    }
    files = sorted(folder.rglob("*.litmus"))
    out = [
        "# Litmus tests\n",
        "Written by `python -m pages.verdicts` from the files in `tests/litmus`. Each holds its programs, its "
        "question and\nits verdict; `tlbcore litmus tests/litmus` runs all of them and compares.\n",
        f"{len(files)} tests. `mrf1` is the one whose verdict differs from the published one; its file says why.",
    ]
    folders = [*titles, *sorted({f.parent.name for f in files} - {*titles})]
    for name in folders:
        title = titles.get(name, name)
        out.append(f"\n## {title}\n")
        rows = []
        for file in (f for f in files if f.parent.name == name):
            text = file.read_text(encoding="utf-8")
            verdict = re.search(r'^  verdict "(.*)"$', text, re.MULTILINE)
            doc = re.search(r'^  "(.*)"$', text, re.MULTILINE)
            states = re.search(r'^  states "(.*)"$', text, re.MULTILINE)
            sources = re.findall(r'^  source "(.*)"$', text, re.MULTILINE)
            rows.append(
                [
                    f"`{file.stem}`",
                    (verdict[1] if verdict else "") + (f", {states[1]} states" if states else ""),
                    doc[1] if doc else "",
                    "; ".join(sources),
                ]
            )
        out.append(_table(["test", "verdict", "what", "source"], rows))
    return "\n".join(out) + "\n"


def _worlds(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the worlds of each policy, in the order of the table."""
    out: dict[str, list[str]] = {}
    for row in rows:
        if row.world not in (of := out.setdefault(row.policy, [])):
            of.append(row.world)
    return out


def _is(row: Row, name: str, world: str, column: tuple[str, int, int, str, str]) -> bool:
    _, *bounds = column
    return (row.policy, row.world, row.defers) == (name, world, "flush") and bounds == [
        row.cpus,
        row.nmis,
        row.danger,
        row.bodies,
    ]


def _cell(rows: Sequence[Row]) -> str:
    of = {(r.asids, r.invpcid): r.status for r in rows}
    base = of[1, INVPCID]
    wide = of.get((2, INVPCID), base)
    strong = of.get((1, "publishes"), base)
    both = of.get((2, "publishes"), wide)
    out = [base]
    out += [f"{wide} with 2 ASIDs"] if wide != base else []
    out += [f"{strong} if INVPCID publishes"] if strong != base else []
    out += [f"{both} with both"] if both != (wide if wide != base else strong) else []
    return ", ".join(out)


def _harsh(row: Row) -> int:
    return sum(_assumed(row))


def _weakest(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the violated rows of a policy that assume no more than any other violated one, each in its first world."""
    first: dict[tuple[object, ...], Row] = {}
    for row in rows:
        if row.policy == name and row.status == "violated":
            first.setdefault((row.defers, *_assumed(row)), row)
    broken = list(first.values())
    return [r for r in broken if not any(o.defers == r.defers and _covers(o, r) for o in broken)]


def _within(row: Row) -> str:
    out = [] if row.world == "pti" else [row.world]
    out += ["one NMI" if row.nmis else "no NMI"]
    out += ["2 ASIDs"] if row.asids == 2 else []
    if row.defers == "sync":
        return ", ".join([*out, f"T={row.text}"])
    out.append(f"D={row.danger}")
    out += [f"N={row.bodies}"] if row.nmis else []
    out += ["INVPCID does not publish"] if row.invpcid == INVPCID and row.status == "violated" else []
    return ", ".join(out)


def _reason(row: Row) -> str:
    found = _core.check_run({**row_request(row, 8 << 30), "trace": True}, None)
    shown = found["counterexample"]
    assert shown is not None  # asked of violated rows
    steps = shown["steps"]
    cpu = steps[-1]["cpu"]
    mine = [step for step in steps if step["cpu"] == cpu]
    words = {
        "(NMI)": "an NMI comes",
        "(walk caches va)": "a walk caches va",
        "(fetches head": "the old first byte is fetched",
    }
    out = []
    for before, step in itertools.pairwise(mine):
        event = next((text for start, text in words.items() if step["what"].startswith(start)), None)
        if event is not None:
            out.append(f"{event} {_after(before, mine)}")
    kept = out[-2:] if row.nmis else out[-1:]
    place = re.search(r"\((.*)\)", steps[-1]["source"] or "")
    used = f"`{mine[-1]['what']}`" + (f" ({place[1]})" if place else "")
    return f"{'; '.join(kept)}; used at {used}. {shown['rule']}."


def _after(step: Mapping[str, Any], mine: Sequence[Mapping[str, Any]]) -> str:
    """Name the last op of the CPU up to a step."""
    ops = [s for s in mine if s["source"] and s["number"] <= step["number"]]
    return f"after `{ops[-1]['what']}`" if ops else "at once"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _write(pages: Sequence[str]) -> None:
    root = Path(__file__).parents[1]
    texts: dict[str, Callable[[], str]] = {
        "verdicts": verdicts_markdown,
        "litmus": lambda: litmus_markdown(root / "tests" / "litmus"),
        "mutants": lambda: mutants_markdown(
            [s for name in policies if (s := score(name)) is not None],
            arguments(root / "tests" / "data" / "mutants.toml"),
        ),
    }
    for page in pages or texts:
        (root / "docs" / f"{page}.md").write_text(texts[page](), encoding="utf-8")


if __name__ == "__main__":
    _write(sys.argv[1:])
