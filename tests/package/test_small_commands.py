"""What the smaller commands print, in this process: lines, figures and refusals, worked out by hand."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore._output import progress
from tlbcore._output.calls import made_by, note
from tlbcore._output.calls import text as call_text
from tlbcore._output.legend import WORDS, legend, used
from tlbcore._output.worlds import LEGEND, as_text, heading
from tlbcore.cli import main
from tlbcore.cli import sweep as sweep_command
from tlbcore.cli.miss_curve import few
from tlbcore.cli.tlb import SIZES
from tlbcore.validation.row import Row, Validation
from tlbcore.verdicts import Cell

WALK = str(Path(__file__).parents[1] / "data" / "addresses" / "walk.lackey.txt.xz")
SCHEMAS = Path(tc.__file__).parent / "data" / "schemas"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    got = main([*words])
    shown = capsys.readouterr()
    assert got == status, shown.err
    return shown.err if status == 2 else shown.out


# -- address traces ----------------------------------------------------------------------------------------------

LINES = [
    "cpu  kind   accesses  l1 hits  l1 misses  stlb hits  stlb misses  walks  walk ratio",
    "  0  load        288        0        288        192           96     96      0.3333",
    "  0  fetch      1453     1452          1          0            1      1   0.0006882",
]


def test_a_walk_through_the_levels(capsys: pytest.CaptureFixture[str]) -> None:
    """`walk.c` reads 96 pages three times from one page of code: see tests/tlb/test_addresses.py."""
    machine = "peers-64x4-1536x12"
    lines = run(capsys, "tlb", WALK, "--machine", machine).splitlines()
    assert " ".join(lines[:2]).split() == [
        WALK,
        "(lackey)",
        "on",
        f"{machine},",
        "4096-byte",
        "pages",
        "(predicted)",
    ]
    assert [line.rstrip() for line in lines[-3:]] == LINES
    document = json.loads(run(capsys, "tlb", WALK, "--machine", machine, "--json", "--kind", "load"))
    figures = {
        key: document[key] for key in ("schema", "version", "format", "physical", "page_size", "levels")
    }
    assert figures == {
        "schema": "tlbcore.tlb", "version": 1, "format": "lackey", "physical": False, "page_size": 4096,
        "levels": ["l1", "stlb"],
    }  # fmt: skip
    assert document["table"]["walks"] == [96]
    assert SIZES == {"4K": 4096, "2M": 2097152, "1G": 1073741824}
    large = json.loads(run(capsys, "tlb", WALK, "--page-size", "2M", "--json", "--limit", "1000"))
    assert (large["machine"], large["page_size"], sum(large["table"]["accesses"])) == (
        "skylake-sp",
        2097152,
        1000,
    )
    wrong = run(capsys, "tlb", WALK, "--page-size", "3M", status=2)
    assert wrong == "tlbcore: error: --page-size takes 4K, 2M, 1G: got '3M'\n"


def test_misses_of_every_size(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "miss-curve", WALK, "--kind", "load", "--sets", "32", "--ways", "3").splitlines()
    assert [line.rstrip() for line in lines[-4:]] == [
        "sets  ways  entries  misses  miss ratio",
        "  32     1       32     288           1",
        "  32     2       64     288           1",
        "  32     3       96      96      0.3333",
    ]
    assert " ".join(" ".join(lines[:-4]).split()).endswith(
        "(lackey): 288 accesses, 4096-byte pages, exact LRU"
    )
    default = run(capsys, "miss-curve", WALK).splitlines()[-8:]
    assert [line.split()[:3] for line in default] == [["16", str(w), str(16 * w)] for w in range(1, 9)]
    for ways, rows in ((32, 32), (33, 17)):
        shown = run(capsys, "miss-curve", WALK, "--ways", str(ways), "--sets", "1")
        assert ("--json has every number of ways" in shown.replace("\n  ", " ")) is (ways > 32)
        assert len([line for line in shown.splitlines() if line.split()[0] == "1"]) == rows
    assert [ways for ways in range(1, 34) if few(ways, 33)] == [
        1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 33,
    ]  # fmt: skip


def test_an_estimate_says_of_how_many_and_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "miss-curve", WALK, "--sample", "0.5", "--ways", "2")
    curve = tc.miss_curve(tc.addresses(WALK), ways=2, sample=0.5)
    assert f"estimated from {curve.sampled} of them (0.5 of the pages; error: 95 %)" in " ".join(
        shown.split()
    )
    assert shown.splitlines()[-2].split()[-1] == "-", "one way: how uncertain it is is not known"
    document = json.loads(run(capsys, "miss-curve", WALK, "--sample", "0.5", "--ways", "2", "--json"))
    assert (document["version"], document["sample"], document["sampled"]) == (1, 0.5, curve.sampled)
    assert document["table"]["miss_ratio_error"][0] is None
    exact = json.loads(run(capsys, "miss-curve", WALK, "--json"))
    assert (exact["accesses"], "sample" in exact, exact["physical"]) == (1741, False, False)


# -- lists and texts ---------------------------------------------------------------------------------------------


def test_the_list_of_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """PTI is on where the CPU has Meltdown; INVLPGB is AMD's, from Zen 3 on, of servers."""
    lines = [line.rstrip() for line in run(capsys, "machines").splitlines()]
    assert lines[0] == "machine                 PTI  PCID  INVPCID  INVLPGB  what it is"
    for line in (
        "haswell-ep-e5-2699v3    yes  yes   yes      -        Intel Xeon E5-2699 v3, Haswell-EP",
        "haswell-e3-1231v3       yes  yes   -        -        Intel Xeon E3-1231 v3, Haswell without INVPCID",
        "ice-lake-sp             -    yes   yes      -        Intel Xeon Ice Lake-SP (6330, 8351N)",
        "zen2-epyc               -    -     -        -        AMD EPYC 7742, Zen 2 (Rome)",
        "zen3-epyc               -    yes   yes      yes      AMD EPYC 7713/7763, Zen 3 (Milan)",
        "zen3-client             -    -     yes      -        AMD Ryzen 9 5950X, Zen 3 client",
    ):
        assert line in lines
    assert (
        lines[-1] == "PTI: on unless turned off. `tlbcore machines NAME` shows where each number comes from."
    )
    document = json.loads(run(capsys, "machines", "--json"))
    assert (document["schema"], document["version"]) == ("tlbcore.machines", 1)
    assert [one["name"] for one in document["machines"]] == list(tc.machines)


def test_one_machine_with_its_marks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    lines = [line.rstrip() for line in run(capsys, "machines", "haswell-ep").splitlines()]
    assert lines[:5] == [
        "haswell-ep-e5-2699v3: Intel Xeon E5-2699 v3, Haswell-EP", "CPUID 306F2", "also: haswell-ep, e5-2699v3", "",
        "TLB",
    ]  # fmt: skip
    assert [lines[i + 1] for i, line in enumerate(lines) if not line] == [
        "TLB",
        "features",
        "page walker",
        "costs",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["dtlb-4k"] == [
        *["64", "entries,", "16", "sets", "x", "4", "ways,", "4K,", "load+store"],
        "published",
        "CPUID",
    ]
    assert rows["dtlb-4k.keeps"][:3] == ["0", "contexts", "predicted"]
    assert rows["pcid"] == ["yes", "published", "CPUID"]
    assert rows["table_levels"][:2] == ["4", "predicted"]
    assert rows["mfence"][:2] == ["33", "cycles"]
    peers = run(capsys, "machines", "peers-64x4-1536x12")
    assert "CPUID" not in peers
    assert "also:" not in peers
    document = json.loads(run(capsys, "machines", "haswell-ep", "--json"))
    assert (document["schema"], document["version"], document["signature"]) == ("tlbcore.machine", 1, "306F2")
    assert document["meltdown"] is document["pcid"] is True


def test_words_and_their_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    meaning = "An interrupt that one CPU sends to another; several queued calls may share one."
    for word in ("IPI", "ipis"):
        assert json.loads(run(capsys, "words", word, "--json")) == {
            "schema": "tlbcore.words", "version": 1,
            "words": [{"word": "IPI", "forms": ["IPI", "IPIs", "ipis"], "meaning": meaning}],
        }  # fmt: skip
    assert len(json.loads(run(capsys, "words", "--json"))["words"]) == len(WORDS)
    assert run(capsys, "words", "verifed", status=2) == (
        "tlbcore: error: unknown word 'verifed', did you mean 'verified'?\n"
    )
    two = (("a|bs", "one two three four five"), ("a word that is longer than its column", "x"))
    assert (
        legend(two, 10)
        == legend(two, 40)
        == "\n".join(
            [f"  a{'':23}one two three", f"{'':26}four five", "  a word that is longer than its column  x"]
        )
    )
    assert legend(two[:1], 60) == f"  a{'':23}one two three four five"
    assert [word for word, _ in used("an IPI, non-isolated, isolateds; stale_access.")] == [
        "IPI|IPIs|ipis", "stale_access",
    ]  # fmt: skip


def test_schemas_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.stem for path in SCHEMAS.glob("*.json"))
    assert run(capsys, "schema").splitlines() == names
    for name in ("tlb", "tlbcore.tlb"):
        assert run(capsys, "schema", name) == (SCHEMAS / "tlb.json").read_text().rstrip() + "\n"
    assert (
        run(capsys, "schema", "tbl", status=2)
        == "tlbcore: error: unknown schema 'tbl', did you mean 'tlb'?\n"
    )


def test_policies_are_listed_shown_and_exported(capsys: pytest.CaptureFixture[str]) -> None:
    listed = run(capsys, "policy", "list").splitlines()
    assert listed[0].split() == ["policy", "needs", "what", "it", "does"]
    assert [line.split()[0] for line in listed[1:] if line[0] != " "] == list(tc.policies)
    assert max(map(len, listed)) <= 100
    document = json.loads(run(capsys, "policy", "list", "--json"))
    assert (document["schema"], document["version"]) == ("tlbcore.policies", 1)
    mine = tc.policies["coalesce-v7"]
    assert document["policies"][list(tc.policies).index("coalesce-v7")] == {
        "name": mine.name, "doc": mine.doc, "source": list(mine.source), "needs": list(mine.needs),
        "limits": list(mine.limits), "digest": mine.digest,
    }  # fmt: skip
    text = run(capsys, "policy", "show", "coalesce-v7")
    assert text == mine.text.rstrip() + "\n"
    kernels = "".join(f"\n{kernel.rstrip()}\n" for _, kernel in _core.policy_kernel())
    assert run(capsys, "policy", "show", "coalesce-v7", "--kernel") == text + kernels
    ops = run(capsys, "policy", "show", "ipi", "--ops").splitlines()
    programs = list(dict.fromkeys(row[0] for row in tc.policies["ipi"].listing()))
    assert [line[:-1] for line in ops if line[0] != " "] == programs
    assert ops[:2] == [
        "enter_user:",
        f"     0 {'Touch(Zone(PerCpu))':<72} linux.kernel:91 (arch/x86/entry/entry_64.S ret_from_fork_asm)",
    ]  # fmt: skip
    promela = run(capsys, "policy", "export", "ipi")
    assert promela == tc.policies["ipi"].promela(isolated=2, entries=2, danger="none")
    other = run(
        capsys, "policy", "export", "ipi", "--isolated", "1", "--entries", "3", "--danger", "recycled"
    )
    assert other == tc.policies["ipi"].promela(isolated=1, entries=3, danger="recycled") != promela
    for to in ("c", "spin"):
        wrong = run(capsys, "policy", "export", "ipi", "--to", to, status=2)
        assert wrong == f"tlbcore: error: a policy is exported to promela, not to `{to}`\n"


# -- results that were made up -----------------------------------------------------------------------------------


def row(
    number: int, name: str, published: float, computed: float | None, tolerance: float, **more: Any
) -> Row:
    fields = {"unit": "ns", "role": "prediction", **more}
    return Row(
        number=number, name=name, published=published, computed=computed, tolerance=tolerance, **fields
    )


ROWS = (
    row(1, "a", 100.0, 110.0, 0.2, role="input"),
    row(2, "b", 0.0, 0.75, 1.0, absolute=True, unit=""),
    row(3, "c", 10.0, None, math.nan, note="the model does not reach"),
    row(4, "d", 2.0, 4.0, 0.5, unit="", role="fitted", note="because"),
    row(5, "e", math.nan, 0.123456, 0.1),
)
SHOWN = [
    ["1", "a", "(ns)", "input", "100", "110", "1.100", "20%", "yes"],
    ["2", "b", "prediction", "0", "0.75", "-", "1", "yes"],
    ["3", "c", "(ns)", "prediction", "10", "-", "-", "-", "not", "computed"],
    ["4", "d", "fitted", "2", "4", "2.000", "50%", "NO"],
]


def test_published_figures_beside_computed_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlbcore.validation.published.validate", lambda **_: Validation(rows=ROWS))
    lines = run(capsys, "validate", status=1).splitlines()
    assert lines[0].split() == [
        "#",
        "figure",
        "role",
        "published",
        "computed",
        "ratio",
        "tolerance",
        "within",
    ]
    assert [line.split() for line in lines[1:5]] == SHOWN
    assert lines[5].split()[:6] == ["5", "e", "(ns)", "prediction", "-", "0.1235"]
    assert lines[6:8] == ["", "4 computed, 2 outside their tolerance; inputs are marked"]
    assert lines[8:] == ["outside: d: because", "outside: e:"]
    misses = run(capsys, "validate", "--misses", status=1).splitlines()
    assert [line.split()[0] for line in misses[1:3]] == ["4", "5"]
    document = json.loads(run(capsys, "validate", "--misses", "--json", "--html", "misses.html", status=1))
    page = Path("misses.html").read_text()
    assert "2 computed, 2 outside their tolerance." in page
    assert "not computed</" not in page
    assert (document["schema"], document["version"]) == ("tlbcore.validate", 1)
    assert [one["number"] for one in document["rows"]] == [4, 5]
    assert document["rows"][0]["ratio"] == 2.0
    within = Validation(rows=ROWS[:3])
    monkeypatch.setattr("tlbcore.validation.published.validate", lambda **_: within)
    assert "2 computed, 0 outside their tolerance" in run(capsys, "validate")


def test_a_sweep_is_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    Path("grid.toml").write_text(
        'scenario = "syscall-heavy"\npolicies = ["ipi", "coalesce-v7"]\n[fixed]\nduration_s = 0.001\n'
        "[grid]\ncpus = [0, 16]\n"
    )
    said = "cpus must be an integer from 1 to 4096: got 0"
    lines = run(capsys, "sweep", "grid.toml", "--out", "o", "--threads", "1").splitlines()
    assert (lines[0], lines[1].startswith("first error: ")) == ("4 points in o, 2 of them failed", True)
    assert "means over the points that did not fail (predicted)" in " ".join(" ".join(lines).split())
    document = json.loads(run(capsys, "sweep", "grid.toml", "--out", "o", "--json"))
    assert (document["schema"], document["version"]) == ("tlbcore.sweep", 1)
    assert (document["points"], document["failed"], document["out"]) == (4, 2, "o")
    assert list(document["means_by_policy"]) == list(sweep_command.SHOWN)
    Path("grid.toml").write_text(Path("grid.toml").read_text().replace("[0, 16]", "[0, -1]"))
    wrong = run(capsys, "sweep", "grid.toml", "--out", "p", status=2)
    assert wrong == f"tlbcore: error: no point can be simulated: {said}\n"
    means = {
        "a": {"value": ["p", "q"], "mean": [1.23456789, 200000.0]},
        "b": {"value": ["p", "q"], "mean": [0, 1]},
    }
    sweep_command._show(means, "all points")
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(" ".join(lines[:-3]).split()) == "means over all points (predicted)"
    assert [line.split() for line in lines[-3:]] == [
        ["policy", "a", "b"],
        ["p", "1.2346", "0"],
        ["q", "2e+05", "1"],
    ]
    assert sweep_command._all_missing(np.array([np.nan, np.nan]))
    assert not sweep_command._all_missing(np.array([np.nan, 0.0]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =", "g.toml: invalid value (at end of document)"),
        ('scenario = "a"\ngrids = 1\n', "g.toml: unknown key 'grids', did you mean 'grid'?"),
        ("[grid]\na = [1]\n", 'g.toml: scenario is missing, such as scenario = "syscall-heavy"'),
        ('scenario = "a"\ngrid = 1\n', "g.toml: grid must be a table"),
        ('scenario = "a"\npolicies = "ipi"\n', "g.toml: policies must be a list"),
        ('scenario = "a"\n', "g.toml: the grid is empty"),
        ('scenario = "a"\nzip = [1]\n', "g.toml: a [[zip]] is a table of lists: got 1"),
        ('scenario = "a"\n[[zip]]\na = 1\n', "g.toml: a [[zip]] is a table of lists: got {'a': 1}"),
        ('scenario = "a"\n[[zip]]\na = [1]\nb = [1, 2]\n',
         "g.toml: the lists of a [[zip]] must have one length: got [1, 2]"),
        ('scenario = "a"\n[grid]\na = [1]\n[kernel]\nptis = true\n',
         "g.toml: [kernel]: unknown key 'ptis', did you mean 'pti'?"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_refused(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("g.toml").write_text(text)
    assert run(capsys, "sweep", "g.toml", "--out", "o", status=2) == f"tlbcore: error: {said}\n"


def test_a_cluster_needs_its_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    Path("g.toml").write_text('scenario = "quiet"\n[grid]\ncpus = [8]\n')
    said = "--dask needs the package distributed: pip install 'tlbcore[cluster]'"
    assert (
        run(capsys, "sweep", "g.toml", "--out", "o", "--dask", "a:1", status=2) == f"tlbcore: error: {said}\n"
    )


def test_figures_of_a_calibration(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two digits below 100, one below 1,000, none above; none of what is counted, whose spread says nothing."""
    from tlbcore.cli import calibrate

    rows = [
        ("cpu.mhz", 3744.4, "MHz", 0.005, True), ("a", 1000.0, "ns", 0.01, True), ("b", 999.96, "ns", 0.01, True),
        ("c", 100.0, "ns", 0.01, True), ("d", 99.994, "ns", 0.01, True), ("e", 12.0, "sets", 0.3, True),
        ("f", 4.0, "ways", 0.3, True), ("g", 64.0, "entries", 10.0, True), ("h", 5.0, "ns", 9.994, False),
        ("i", 1234.5, "cycles", 0.0, True),
    ]  # fmt: skip
    names = ("key", "value", "unit", "spread", "stable")
    figures = {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    figures |= {"mark": np.array(["measured"] * 10), "how": np.array(["so"] * 10)}
    found = SimpleNamespace(
        figures=figures, getpid_ns=100.0, getpid_predicted_ns=110.4, getpid_error=0.104, base_why="as asked",
        base=SimpleNamespace(name="zen4-epyc"), caveats=["[one]", "two"],
        inherited=[("costs.mfence", "59 cycles", "published"), ("l1.index", "linear", "predicted"),
                   ("costs.lock", "7 cycles", "predicted")],
    )  # fmt: skip
    calibrate._show(found)  # type: ignore[arg-type]
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].split() == ["figure", "value", "spread", "how"]
    assert lines[1] == "cpu.mhz     3,744 MHz     0.5%  measured  so"
    assert [line.split() for line in lines[1:11]] == [
        ["cpu.mhz", "3,744", "MHz", "0.5%", "measured", "so"],
        ["a", "1,000", "ns", "1.0%", "measured", "so"],
        ["b", "1,000.0", "ns", "1.0%", "measured", "so"],
        ["c", "100.0", "ns", "1.0%", "measured", "so"],
        ["d", "99.99", "ns", "1.0%", "measured", "so"],
        ["e", "12", "sets", "measured", "so"],
        ["f", "4", "ways", "measured", "so"],
        ["g", "64", "entries", ">", "1000%", "measured", "so"],
        ["h", "5.00", "ns", "999.4%", "unstable", "so"],
        ["i", "1,234", "cycles", "0.0%", "measured", "so"],
    ]
    assert lines[11:] == [
        "",
        "getpid: predicted 110 ns from the other calls without work, measured 100 ns: +10%",
        "",
        "inherited from zen4-epyc (as asked): 3 numbers, among them",
        "  mfence 59 cycles (published); lock 7 cycles (predicted)",
        "", "mind that", "  - [one]", "  - two",
    ]  # fmt: skip
    found.getpid_ns, found.caveats = math.nan, []
    figures["how"] = np.array(["in a sentence that has room if it is broken"] * 10)
    monkeypatch.setenv("COLUMNS", "60")
    calibrate._show(found)  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert ("getpid" in shown, "mind that" in shown) == (False, False)
    assert shown.count("figure") == 1, "one group of columns"


def test_what_is_measured_and_how_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def calibrate(**options: Any) -> None:
        asked.append({key: value for key, value in options.items() if key != "progress"})
        raise tc.TlbError("so far")

    monkeypatch.setattr("tlbcore.inspect.calibration.calibrate", calibrate)
    words = ["--seconds", "1.5", "--cpu", "1", "--inherits", "zen4-epyc", "--name", "mine"]
    for more in ([], words):
        assert run(capsys, "calibrate", *more, status=2) == "tlbcore: error: so far\n"
    assert asked == [
        {"seconds": 20.0, "cpu": None, "base": None, "name": None},
        {"seconds": 1.5, "cpu": 1, "base": "zen4-epyc", "name": "mine"},
    ]


def test_a_grid_becomes_the_arguments_of_a_sweep() -> None:
    Path("g.toml").write_text(
        'scenario = "quiet"\nmachine = "skylake-sp"\npolicies = ["ipi"]\nmetrics = ["syscall_mean_ns"]\n'
        "replications = 3\nseed = 7\n[fixed]\nduration_s = 1\n[kernel]\npti = true\n[grid]\ncpus = [8, 16]\n"
        "[[zip]]\na = [1, 2]\nb = [3, 4]\n"
    )
    plan = sweep_command._read(Path("g.toml"))
    kernel = plan.pop("kernel")
    assert kernel == tc.Kernel(pti=True)
    assert plan == {
        "base": "quiet", "machine": "skylake-sp", "policies": ["ipi"], "metrics": ["syscall_mean_ns"],
        "replications": 3, "seed": 7, "fixed": {"duration_s": 1},
        "grid": {"cpus": [8, 16], ("a", "b"): [(1, 3), (2, 4)]},
    }  # fmt: skip
    Path("g.toml").write_text('scenario = "quiet"\n[grid]\ncpus = [8]\n')
    assert sweep_command._read(Path("g.toml")) == {"base": "quiet", "grid": {"cpus": [8]}, "fixed": {}}


def test_the_demo_gives_what_was_recorded_and_what_would_be_left(capsys: pytest.CaptureFixture[str]) -> None:
    """CPU 2 had 265 interrupts and CPU 3 275 in 60.7 s; both ends of what is left are sums over the two."""
    from tlbcore.cli import demo

    lines = demo._explained().splitlines()
    assert lines[0] == "1. Who interrupted the isolated CPUs?" + f"{'tlbcore explain TRACE':>53}"
    assert (
        lines[1]
        == "   A real kernel (6.12), CPUs 2-3 isolated; elsewhere a module is loaded and unloaded for 61 s."
    )
    assert lines[2] == "   CPU 2: 265 interrupts, 15,725 per hour (measured):"
    assert lines[3:6] == [
        "      105 exec_memory_free   from modloop 60%, kworker 40%",
        "       70 set_memory         from modloop 100%",
        "       39 dl_server          from <idle> 72%, modloop 18%",
    ]
    assert lines[6] == "   CPU 3: 275 interrupts, 16,319 per hour (measured):"
    assert lines[10:] == [
        "   Interrupts left, both CPUs (predicted): ipi 540, ct-late 328 to 329, coalesce-v7 328 to 329, "
        "coalesce-v7-fixed 328 to 329."
    ]
    rows = [line.split() for line in demo._compared().splitlines()[3:]]
    assert rows[0] == [
        "policy",
        "IPIs/h",
        "interference",
        "us/h",
        "system",
        "call",
        "ns",
        "sender",
        "waits",
        "us",
    ]
    assert [one[0] for one in rows[1:]] == list(demo.POLICIES)
    assert [one[1] for one in rows[1:]] == ["360", "0", "0", "0"]
    assert demo._heading("Q?", "c") == "Q?" + " " * 87 + "c"
    run(capsys, "words")


@pytest.mark.parametrize(
    ("status", "beyond", "said"),
    [
        ("verified", "violated", "name: Said. If a future change touched recycled memory{}: violated."),
        ("verified", "verified", "name: Said."),
        ("verified", None, "name: Said."),
        ("violated", "violated", "name: Said."),
        ("inconclusive", "violated", "name: Said."),
    ],
)
def test_the_demo_says_what_a_verdict_rests_on(
    status: str, beyond: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlbcore.cli import demo

    def check(name: str) -> SimpleNamespace:
        run = "lanes of the run\n\nwhere\n\nwhy" if name == "coalesce-v7" else "another run"
        hypothesis = None if beyond is None else SimpleNamespace(status=beyond)
        return SimpleNamespace(
            status=status, sentence="Said; assuming a; assuming b", hypothesis=hypothesis, counterexample=run
        )

    monkeypatch.setattr(tc, "check", check)
    monkeypatch.setattr(demo, "CHECKED", ("name", "coalesce-v7"))
    text = " ".join(demo._checked().split())
    wanted = said.format(" on the entry and exit paths")
    assert text == (
        f"3. Is it safe? tlbcore check POLICY {wanted} {wanted.replace('name', 'coalesce-v7')} "
        "The interleaving that breaks coalesce-v7: lanes of the run"
    )


# -- tables of worlds, calls, bars -------------------------------------------------------------------------------


def test_the_table_of_worlds_by_hand() -> None:
    cells = [
        Cell(policy=policy, world=world, linux=linux, status=status, nmi=status, known=status, nmi_known=status)
        for policy, world, linux, status in [
            ("ipi", "nopti+invlpgb", "7.3", "verified"), ("ipi", "pti", "6.12", "verified"),
            ("ipi", "pti", "7.3", "violated"), ("longest", "pti", "7.3", "verified"),
        ]
    ]  # fmt: skip
    legend_ = [f"{word:<4} {meaning}" for word, meaning in LEGEND.items()]
    assert as_text(cells).split("\n") == [
        "        invlpgb pti",
        "        7.3     6.12 7.3",
        "ipi     ok      ok   bad",
        "longest              ok",
        "", *legend_,
    ]  # fmt: skip
    assert as_text([]).split("\n") == ["", "", "", *legend_]
    assert [heading(world) for world in ("pti", "nopti+fred", "nopti+invlpgb+fred")] == [
        "pti",
        "fred",
        "fred",
    ]


class _Shaped:
    shape = (2, 3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", "'a'"),
        (Path("a/b"), "'a/b'"),
        (len, "len"),
        (np.zeros((2, 3)), "<array of shape (2, 3)>"),
        ("x" * 78, f"'{'x' * 78}'"),
        ("x" * 79, f"'{'x' * 78}…"),
        (range(3), "range(0, 3)"),
    ],
)
def test_a_call_as_text(value: Any, shown: str) -> None:
    assert call_text("f", (value,), {"a": value, "progress": True}) == f"tlbcore.f({shown}, a={shown})"
    odd = _Shaped()
    assert call_text("f", (odd,), {}) == f"tlbcore.f({odd!r})"


def test_a_result_is_shown_by_the_call_that_made_it() -> None:
    curve = tc.miss_curve([1, 2], sets=1, ways=1)
    assert made_by(curve) == "tlbcore.miss_curve([1, 2], sets=1, ways=1)"
    assert call_text("f", (curve,), {}) == "tlbcore.f(tlbcore.miss_curve([1, 2], sets=1, ways=1))"
    note(curve, "mine")
    assert (made_by(curve), made_by(object())) == ("mine", "")


def test_a_cell_is_written_again_after_a_fifth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[dict[str, str]] = []

    class Handle:
        def update(self, text: dict[str, str], *, raw: bool) -> None:
            written.append(text)

    from rich.progress import Progress as Bars

    cell = progress._Cell(Bars(auto_refresh=False), "x")
    cell._handle = Handle()
    monkeypatch.setattr(cell, "_text", dict)
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    counts = []
    for now in (0.2, 0.3, 0.4, 0.59, 0.61):  # noqa: B007  (the clock reads it)
        cell.advance(1, 5)
        counts.append(len(written))
    assert counts == [1, 1, 2, 2, 3]
    with progress.shown(1, "x") as advance:  # type: ignore[arg-type]  # only True asks for the bar
        assert advance == 1


def test_a_replay_stands_on_the_version_and_the_paths_that_are_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Replayed:
        def to_json(self) -> dict[str, Any]:
            return {"policies": 1}

        def __str__(self) -> str:
            return "what would have happened"

    def replay(trace: str, policies: Any, machine: str | None) -> Replayed:
        asked.append((trace, list(policies), machine))
        return Replayed()

    def page(result: Replayed, document: dict[str, Any]) -> str:
        return json.dumps(document)

    monkeypatch.setattr("tlbcore.trace.replayed.replay", replay)
    monkeypatch.setattr("tlbcore._output.html.reports.replay", page)
    monkeypatch.setattr("tlbcore.cli._trace.read", lambda path, isolated: (f"{path} of {isolated}", None))
    monkeypatch.setattr("tlbcore.cli._trace.finish", lambda *_: None)
    Path("t.kernel").write_text(dict(_core.policy_kernel())["linux.kernel"])
    mine = tc.policies["coalesce-v7"]
    for words, policies, machine in [
        ("--policy coalesce-v7", [mine], None),
        ("--policy coalesce-v7 --kernel-version 7.3 --machine zen5-epyc", [mine.on("7.3")], "zen5-epyc"),
        ("--policy coalesce-v7 --kernel t.kernel", [mine.on(Path("t.kernel"))], None),
    ]:
        shown = run(capsys, "replay", "t.txt", "--isolated", "2", *words.split(), "--html", "t.html")
        assert shown == "what would have happened\n"
        assert asked[-1] == ("t.txt of 2", policies, machine)
    assert json.loads(Path("t.html").read_text()) == {"schema": "tlbcore.replay", "version": 1, "policies": 1}
    assert json.loads(run(capsys, "replay", "t.txt", "--json")) == json.loads(Path("t.html").read_text())
