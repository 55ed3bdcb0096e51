"""CPU presets: complete, sourced, and readable by users' own files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tlbcore as tc

# Every part named in the published tables, and what CPUID or a measurement says of its second level.
PARTS = {
    "e5-2699v3": ("haswell-ep-e5-2699v3", 1024),
    "e5-2699v4": ("broadwell-ep-e5-2699v4", 1536),
    "e5-2696v4": ("broadwell-ep-e5-2699v4", 1536),
    "e5-2697v4": ("broadwell-ep-e5-2699v4", 1536),
    "e5-2620v4": ("broadwell-ep-e5-2699v4", 1536),
    "e7-8890v4": ("broadwell-ex-e7-8890v4", 1536),
    "xeon-8160": ("skylake-sp", 1536),
    "xeon-8180": ("skylake-sp", 1536),
    "xeon-6154": ("skylake-sp", 1536),
    "gold-5215": ("cascade-lake-sp", 1536),
    "gold-6212u": ("cascade-lake-sp", 1536),
    "xeon-8280": ("cascade-lake-sp", 1536),
    "gold-6248": ("cascade-lake-sp", 1536),
    "xeon-6330": ("ice-lake-sp", 2048),
    "xeon-8351n": ("ice-lake-sp", 2048),
    "w7-2475x": ("sapphire-rapids", 2048),
    "gold-5520+": ("emerald-rapids", 2048),
    "xeon-658x": ("granite-rapids", 2048),
    "i5-12400": ("golden-cove", 2048),
    "i9-13900k": ("raptor-cove", 2048),
    "288v": ("lion-cove", 2048),
    "epyc-7742": ("zen2-epyc", 2048),
    "epyc-7713": ("zen3-epyc", 2048),
    "epyc-7763": ("zen3-epyc", 2048),
    "epyc-9654": ("zen4-epyc", 3072),
    "epyc-9124": ("zen4-epyc", 3072),
    "epyc-9655": ("zen5-epyc", 4096),
    "epyc-9965": ("zen5-epyc", 4096),
    "5950x": ("zen3-client", 2048),
    "7600x": ("zen4-client", 3072),
    "9950x": ("zen5-client", 4096),
}
L1_LOADS = {
    "zen2-epyc": 64,
    "zen3-epyc": 64,
    "zen4-epyc": 72,
    "zen5-epyc": 96,
    "granite-rapids": 96,
    "lion-cove": 128,
}
MARKS = {"measured", "published", "fitted", "predicted", "unsourced"}


def entries(machine: tc.Machine, level: int, kind: str) -> int:
    shapes = machine.levels[level]["structures"]
    return sum(s["sets"] * s["ways"] for s in shapes if "4K" in s["sizes"] and kind in s["kinds"])


@pytest.mark.parametrize("part", PARTS)
def test_a_part_finds_its_machine_with_the_published_sizes(part):
    name, second = PARTS[part]
    machine = tc.machine(part)
    assert machine.name == name
    assert entries(machine, 1, "load") == second
    assert entries(machine, 0, "load") == L1_LOADS.get(name.replace("client", "epyc"), 64)


def test_every_machine_is_some_part_of_the_tables_or_named_here():
    others = {"haswell-e3-1231v3", "peers-64x4-1536x12", "haswell-ep-calls", "latr-2x8", "latr-8x15"}
    assert {name for name, _ in PARTS.values()} | others == set(tc.machines)


@pytest.mark.parametrize("name", tc.machines)
def test_every_number_has_a_mark_and_a_source(name):
    machine = tc.machines[name]
    assert len(machine.facts) > 40
    for fact in machine.facts:
        assert fact.mark in MARKS
        assert fact.source
        assert fact.value
    for cost in machine.costs.values():
        assert cost.low <= cost.cycles <= cost.high
        assert cost.mark in MARKS
        assert cost.doc


def test_features_follow_the_tables():
    intel = [m for m in tc.machines.values() if m.vendor == "intel"]
    amd = [m for m in tc.machines.values() if m.vendor == "amd"]
    assert [m.name for m in intel if m.meltdown] == [
        "haswell-ep-e5-2699v3",
        "haswell-e3-1231v3",
        "haswell-ep-calls",
        "latr-2x8",
        "latr-8x15",
        "broadwell-ep-e5-2699v4",
        "broadwell-ex-e7-8890v4",
        "skylake-sp",
    ]
    assert not any(m.meltdown for m in amd)
    assert [m.name for m in tc.machines.values() if m.invlpgb_extra] == [
        "zen3-epyc",
        "zen4-epyc",
        "zen5-epyc",
    ]
    assert [m.name for m in intel if not m.invpcid] == ["haswell-e3-1231v3", "latr-8x15"]
    assert not tc.machines["zen2-epyc"].pcid


def test_published_costs_are_as_published():
    assert tc.machines["haswell-ep-e5-2699v3"].costs["mov_cr3_flush"].cycles == 124
    assert tc.machines["haswell-ep-e5-2699v3"].costs["cr4_pge_toggle"].cycles == 960
    assert tc.machines["skylake-sp"].costs["stlb_hit"].cycles == 9
    assert tc.machines["skylake-sp"].costs["invpcid_all"].cycles == round(376 * 2.5)
    assert tc.machines["zen4-epyc"].costs["tlbsync"].mark == "unsourced"


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one():
    with pytest.raises(tc.TlbError, match='no machine is called "skylake-ps"; did you mean "skylake-sp"'):
        tc.machine("skylake-ps")
    with pytest.raises(KeyError):
        tc.machines["nonsense"]
    assert "e5-2699v4" in tc.machines


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_users_file_works_as_a_builtin_machine_does(tmp_path):
    path = write(
        tmp_path,
        """
name = "mine"
inherits = "skylake-sp"
[cpu]
mhz = { value = 3000, mark = "measured", source = "my machine" }
[[level]]
name = "stlb"
[[level.structure]]
name = "stlb"
ways = 8
replacement = "lru"
""",
    )
    for machine in (tc.machine(path), tc.machine(str(path))):
        assert entries(machine, 1, "load") == 1024
        assert machine.mhz == 3000
    assert tc.Tlb(path).access([1, 1]).l1_hits == 1
    assert {fact.mark for fact in tc.machine(path).facts if fact.key == "stlb.entries"} == {"published"}


BAD_TEXTS = [
    ('name = "x"\ninherits = "skylake-sp"\n[cpu]\npcdi = 1\n', ':4: unknown key "pcdi"; did you mean "pcid"'),
    ('name = "x"\ninherit = "skylake-sp"\n', ':2: unknown key "inherit"; did you mean "inherits"'),
    ('name = "x"\ninherits = "skylark"\n', ":2: inherits names no built-in machine"),
    (
        'name = "x"\ninherits = "skylake-sp"\n[costs]\ninvlgp = 1\n',
        ':4: unknown key "invlgp"; did you mean "invlpg"',
    ),
    (
        'name = "x"\ninherits = "skylake-sp"\n[costs]\ninvlpg = "fast"\n',
        ":4: invlpg must be a number: got string",
    ),
    ('name = "x"\ninherits = "skylake-sp"\n[costs]\ninvlpg = nan\n', ":4: invlpg must be finite"),
    (
        'name = "x"\ninherits = "skylake-sp"\n[costs]\ninvlpg = { cycles = 5, low = 6 }\n',
        "must lie between its low",
    ),
    (
        'name = "x"\ninherits = "skylake-sp"\n[costs]\ninvlpg = { cycles = 5, mark = "mesured" }\n',
        'did you mean "measured"',
    ),
    *(
        (
            f'name = "x"\ninherits = "skylake-sp"\n[{of}]\n{key} = {value}\n',
            rf"{of}\.{key} must be {said}: got {value}",
        )
        for of, key, values, said in (
            ("walker", "overlap", (0.99, 100.5), "between 1 and 100"),
            ("cpu", "lines_at_once", (100.5, 101), "between 0 and 100"),
        )
        for value in values
    ),
    ('name = "x\n', ":1:"),
    ("title = 3\n", ":1: title must be a string: got integer"),
    ("", "a machine needs a name"),
    ('name = "x"\n', "cpu.mhz is missing"),
]
STRUCTURE = """name = "x"
inherits = "_generic"
[cpu]
mhz = 1000
[[level]]
name = "l1"
[[level.structure]]
name = "s"
"""
BAD_SHAPES = [
    ('sets = 3\nways = 2\nsizes = ["4K"]\n', r"s\.sets: must be a power of two .*: got 3"),
    ('sets = 4\nways = 0\nsizes = ["4K"]\n', r"s\.ways: must be at least 1: got 0"),
    ("sets = 0\nways = 4\nsizes = ['4K']\n", r"s\.sets: must be at least 1: got 0"),
    ("ways = 4\n", r"s\.sizes: must name at least one"),
    ("ways = 4\nsizes = ['8K']\n", r':10: sizes must name 4K, 2M, 1G: got "8K"'),
    ("ways = 4\nsizes = ['4K']\nkinds = ['write']\n", r":11: kinds must name load, store, fetch"),
    (
        "ways = 6\nsizes = ['4K']\nreplacement = 'tree-plru'\n",
        r"s\.ways: must be a power of two, at most 64, for tree-plru",
    ),
    ("ways = 7\nsizes = ['4K']\nreplacement = 'mru-plru'\n", r"s\.ways: must be 2 to 16 groups"),
    ("ways = 4\nsizes = ['4K']\nreplacement = 'clock'\n", r":11: replacement must be lru, .*: got \"clock\""),
    ("ways = 4\nsizes = ['4K']\nindex = 'hash'\n", r":11: index must be linear, xor or modulo"),
    ("ways = 1.5\nsizes = ['4K']\n", r":9: ways must be a whole number: got 1.5"),
    ("wayz = 4\n", r':9: unknown key "wayz"; did you mean "ways"'),
    ("ways = 4\nsets = 8388608\nsizes = ['4K']\n", r"must be at most 2\*\*24"),
]


@pytest.mark.parametrize(
    ("text", "message"), [*BAD_TEXTS, *((STRUCTURE + rest, message) for rest, message in BAD_SHAPES)]
)
def test_a_bad_preset_is_refused_with_file_line_and_rule(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(tc.TlbError, match=message) as caught:
        tc.machine(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("of", "key", "value"),
    [("walker", "overlap", n) for n in (1, 100)] + [("cpu", "lines_at_once", n) for n in (0, 100)],
)
def test_a_figure_at_the_end_of_its_range_is_taken(tmp_path, of, key, value):
    path = write(tmp_path, f'name = "x"\ninherits = "skylake-sp"\n[{of}]\n{key} = {value}\n')
    assert {fact.value for fact in tc.machine(path).facts if fact.key == f"{of}.{key}"} == {str(value)}


def test_a_file_that_cannot_be_read_is_an_oserror_and_binary_a_tlberror(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        tc.machine(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(tc.TlbError, match="must be a TOML text"):
        tc.machine(tmp_path / "bytes.toml")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tlbcore", "machines", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_command_lists_every_machine():
    done = command()
    assert done.returncode == 0
    assert all(name in done.stdout for name in tc.machines)


def test_the_command_shows_one_machine_with_its_sources():
    done = command("e5-2699v4")
    assert done.returncode == 0
    assert done.stdout.startswith("broadwell-ep-e5-2699v4: Intel Xeon E5-2699 v4")
    for text in ("stlb", "MEMLAT", "unsourced", "invpcid_all", "376 ns"):
        assert text in done.stdout


def test_the_command_prints_json_with_schema_and_version():
    whole = json.loads(command("--json").stdout)
    assert (whole["schema"], whole["version"]) == ("tlbcore.machines", 1)
    assert len(whole["machines"]) == len(tc.machines)
    one = json.loads(command("skylake-sp", "--json").stdout)
    assert one["schema"] == "tlbcore.machine"
    assert {"key": "cpu.pcid", "value": "yes", "mark": "published", "source": "CPUID"} in one["facts"]


def test_an_unknown_machine_is_one_line_and_status_2():
    done = command("skylake-ps")
    assert done.returncode == 2
    assert done.stderr == 'tlbcore: error: no machine is called "skylake-ps"; did you mean "skylake-sp"?\n'
