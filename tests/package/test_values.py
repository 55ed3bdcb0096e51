"""What policies, kernels and machines are and refuse: rows worked out by hand."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore.kernel import machine_text
from tlbcore.policy import FEATURES, as_policies, as_policy

IPI = tc.policies["ipi"]
V7 = tc.policies["coalesce-v7"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: IPI.promela(isolated=0), "isolated must be an integer from 1 to 4: got 0"),
        (lambda: IPI.promela(isolated=2**40), "isolated must be an integer from 1 to 4: got 1099511627776"),
        (lambda: IPI.promela(entries=5), "entries must be an integer from 1 to 4: got 5"),
        (lambda: IPI.promela(entries=-1), "entries must be an integer from 1 to 4: got -1"),
        (lambda: IPI.promela(danger="percpu"), "danger must be `none` or `recycled`: got `percpu`"),
        (lambda: IPI.listing("pti"), "features are a list of names: got the text 'pti'"),
        (lambda: IPI.code("pti"), "features are a list of names: got the text 'pti'"),
        (lambda: IPI.listing(["foo"]), "`foo` is no feature"),
        (lambda: V7.replace(name="m", header="var x"), "header is a list of lines: got the text 'var x'"),
        (
            lambda: IPI.on("6.12.3"),
            "ipi.policy:1:1: there are no programs of Linux 6.12.3; these are: 6.12, 7.3",
        ),
        (lambda: IPI.on("9.9"), "ipi.policy:1:1: there are no programs of Linux 9.9; these are: 6.12, 7.3"),
        (lambda: as_policy(5), "a policy is a name, a file or a Policy: got 5"),
        (lambda: as_policy(""), "a policy is a name, a file or a Policy: got ''"),
        (lambda: as_policy(" "), "a policy is a name, a file or a Policy: got ' '"),
        (lambda: as_policy("ipii"), "no policy is called `ipii`; did you mean `ipi`?"),
        (lambda: as_policies("ipi"), "policies are a list of names, files or policies: got 'ipi'"),
        (lambda: as_policies(5), "policies are a list of names, files or policies: got 5"),
    ],
)
def test_what_a_policy_refuses(make: Callable[[], object], said: str) -> None:
    with pytest.raises(tc.PolicyError) as found:
        make()
    assert str(found.value) == said


def test_a_policy_stands_on_a_version_or_a_file_and_nothing_else() -> None:
    with pytest.raises(TypeError, match=r"on: kernel must be str | Path: got 7\.3 \(float\)"):
        IPI.on(7.3)  # type: ignore[arg-type]
    assert (IPI.linux, IPI.on("7.3").linux) == ("6.12", "7.3")
    with pytest.raises(FileNotFoundError):
        IPI.on("6.12/none")


def test_what_a_policy_is() -> None:
    assert V7.file == "coalesce-v7.policy"
    assert tc.Policy(text=V7.text, file="mine").file == "mine"
    assert V7.digest == hashlib.sha256(V7.canonical.encode()).hexdigest()
    assert repr(V7) == f"<Policy coalesce-v7 {V7.digest[:12]}>"
    assert str(V7) == V7.text
    other = tc.Policy(text=f"# a remark\n{V7.text}", file="mine", programs=("purge",))
    assert (other == V7, hash(other) == hash(V7)) == (True, True)
    assert V7 != IPI
    assert V7 != V7.text  # noqa: SIM300
    assert pickle.loads(pickle.dumps(V7)) == V7
    words = {name: tc.policies[name].defers for name in ("ipi", "coalesce-v7", "text-defer-v7", "luf")}
    assert words == {
        "ipi": ("flush",),
        "coalesce-v7": ("flush",),
        "text-defer-v7": ("sync",),
        "luf": ("user",),
    }
    assert FEATURES == ("pti", "pcid", "invpcid", "housekeeping_overridden", "context_tracking")


def test_a_policy_is_read_as_what_it_is_called(tmp_path: Path) -> None:
    file = tmp_path / "mine.policy"
    file.write_text(V7.text)
    for given in (str(file), file):
        read = as_policy(given, programs=("purge",))
        assert (read, read.file, read.programs) == (V7, str(file), ("purge",))
    bare = tmp_path / "bare"
    bare.write_text(IPI.text)
    assert as_policy(f"{tmp_path}/bare") == IPI
    assert as_policies(["ipi", V7, file]) == [IPI, V7, V7]
    assert as_policy("ipi") is as_policy("ipi")


def test_a_policy_s_sections_may_be_texts_or_lists() -> None:
    made = V7.replace(name="mine", header=["var mine : 1 bits, per cpu, starts 0"], coalesce="fence\nfence")
    assert made.name == "mine"
    assert made == V7.replace(
        name="mine", header=["var mine : 1 bits, per cpu, starts 0"], coalesce=["fence", "fence"]
    )
    assert any("mine" in line for line in made.text.splitlines() if line.strip().startswith("var"))
    assert made.file == "mine.policy"


def test_the_built_in_policies_are_a_mapping() -> None:
    assert len(tc.policies) == len(list(tc.policies)) == 36
    assert 5 not in tc.policies
    assert repr(tc.policies).startswith("<policies ipi, ")
    assert tc.policies._ipython_key_completions_() == list(tc.policies)  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="nosuch"):
        tc.policies["nosuch"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tc.Kernel(pti="on"), "pti must be True, False or None (the CPU decides): got 'on'"),
        (lambda: tc.Kernel(pti=1), "pti must be True, False or None (the CPU decides): got 1"),
        (lambda: tc.Kernel(nopcid=None), "nopcid must be True or False: got None"),
        (
            lambda: tc.Kernel(flush_ceiling=1 << 32),
            "flush_ceiling must be an integer from 0 to 4294967295: got 4294967296",
        ),
    ],
)
def test_what_a_kernel_refuses(make: Callable[[], object], said: str) -> None:
    with pytest.raises(tc.ConfigError) as found:
        make()
    assert str(found.value) == said


def test_what_a_kernel_is() -> None:
    data = json.loads(tc.Kernel(pti=np.bool_(True), flush_ceiling=np.int64(0)).to_json())
    assert data == {
        "pti": True, "pti_built_in": True, "nopcid": False, "noinvpcid": False, "no_hz_full": True,
        "context_tracking": True, "coalesce_tlbi": False, "track_cr3": False, "vmap_stack": True,
        "broadcast_tlb_flush": False, "rar": False, "flush_ceiling": 0,
    }  # fmt: skip
    assert tc.Kernel(flush_ceiling=(1 << 32) - 1).flush_ceiling == 4294967295
    assert tc.Kernel().replace(pti=False) == tc.Kernel(pti=False)
    assert tc.Kernel().flush_ceiling == 33


def test_what_a_policy_needs_and_a_kernel_lacks() -> None:
    kernel = tc.Kernel()
    assert kernel.inert("coalesce-v7", "skylake-sp") == ()
    assert kernel.inert("ct-late", "skylake-sp", isolated=True) == ()
    (why,) = kernel.inert("ct-late", "skylake-sp", isolated=False)
    assert why == "`ct-late` is inert: it needs context_tracking, and no CPU is isolated (nohz_full=)"
    assert "pti" in kernel.replace(pti=False).inert(V7, tc.machines["skylake-sp"])[0]


CONFIG = "# Linux/x86\nCONFIG_X86_64=y\nCONFIG_NO_HZ_FULL=y\nCONFIG_CONTEXT_TRACKING_USER=y\n"


@pytest.mark.parametrize("cpus", [0, -1, 65537, 10**9, 4.5, "x", True])
def test_a_kernel_has_some_cpus_and_not_more_than_there_can_be(cpus: object, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(CONFIG)
    with pytest.raises(tc.ConfigError) as found:
        tc.Kernel.from_config(file, cmdline="nohz_full=1-N", cpus=cpus)  # type: ignore[arg-type]
    assert str(found.value) == f"cpus must be an integer from 1 to 65536: got {cpus!r}"


@pytest.mark.parametrize(
    ("cmdline", "cpus", "isolated", "remarks"),
    [
        ("nohz_full=1-N", 4, (1, 2, 3), []),
        ("nohz_full=3", 4, (3,), []),
        ("quiet", None, (), []),
        ("nohz_full=0-3", 8, (1, 2, 3), ["CPU 0 is taken out of nohz_full: it keeps the time"]),
        (
            "isolcpus=2-3",
            4,
            (),
            [
                "isolcpus=2-3 sets housekeeping_overridden, but no CPU is NOHZ_FULL: the entry macros run and "
                "nothing is deferred (docs/sources.md, FACTS 5.2)"
            ],
        ),
    ],
)
def test_a_kernel_from_its_configuration(
    cmdline: str, cpus: int | None, isolated: tuple[int, ...], remarks: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "config"
    file.write_text(CONFIG)
    kernel, said, found = tc.Kernel.from_config(file, cmdline=cmdline, cpus=cpus, release="6.12")
    assert found == isolated
    assert [line for line in said if "CPU" in line] == remarks
    assert (kernel.no_hz_full, kernel.context_tracking, kernel.pti_built_in) == (True, True, False)


def test_isolation_that_has_no_effect_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("# Linux/x86\nCONFIG_X86_64=y\n")
    _, said, found = tc.Kernel.from_config(file, cmdline="nohz_full=1", cpus=2, release="6.12")
    assert found == ()
    assert "nohz_full= has no effect: NO_HZ_FULL is not set" in said
    file.write_text(CONFIG)
    with pytest.raises(
        tc.ConfigError, match=r"^command line of Linux 6\.12: nohz_full=2: CPU 2 is beyond the last"
    ):
        tc.Kernel.from_config(file, cmdline="nohz_full=2", cpus=2, release="6.12")
    for wrong in ({"release": 6}, {"cmdline": 5}):
        with pytest.raises(TypeError, match=r"^from_config: \w+ must be str"):
            tc.Kernel.from_config(file, **wrong)  # type: ignore[arg-type]


def test_what_a_machine_is(tmp_path: Path) -> None:
    one = tc.machine("broadwell-ep")
    assert (one.name, one.text, one.vendor, one.mhz) == ("broadwell-ep-e5-2699v4", None, "intel", 2200)
    assert (one.pcid, one.invpcid, one.invlpgb_extra, one.meltdown) == (True, True, None, True)
    assert one.aliases == ("broadwell-ep", "e5-2699v4", "e5-2696v4", "e5-2697v4", "e5-2620v4")
    assert one.signature == "406F1"
    assert one is tc.machine("broadwell-ep")
    assert one == tc.machine("e5-2699v4")
    assert tc.machine(one) is one
    zen = tc.machine("zen3-epyc")
    assert (zen.pcid, zen.invlpgb_extra, zen.meltdown) == (True, 7, False)
    assert zen.vendor == "amd"
    assert [level["name"] for level in one.levels] == ["l1", "stlb"]
    assert machine_text(one) == "broadwell-ep-e5-2699v4"
    preset = Path(__file__).parents[2] / "src" / "hw" / "presets" / "zen3-epyc.toml"
    mine = tmp_path / "mine.toml"
    mine.write_bytes(b"\xef\xbb\xbf" + preset.read_bytes())
    read = tc.machine(str(mine))
    assert (read.name, read.title) == (str(mine), zen.title)
    assert machine_text(mine) == preset.read_text()
    assert read == tc.machine(mine)
    assert read != zen
    mine.write_bytes(b"\xff")
    with pytest.raises(tc.TlbError, match=r"mine\.toml: must be a TOML text: got bytes that are not UTF-8"):
        tc.machine(mine)


def test_the_numbers_of_a_machine_have_marks_and_sources() -> None:
    one = tc.machine("broadwell-ep")
    facts = {fact.key: fact for fact in one.facts}
    assert set(one.sources) == set(facts)
    assert {fact.mark for fact in one.facts} <= {"measured", "published", "fitted", "predicted", "unsourced"}
    for name, cost in one.costs.items():
        assert cost.low <= cost.cycles <= cost.high
        fact = facts[f"costs.{name}"]
        assert (fact.mark, one.sources[fact.key]) == (cost.mark, fact.source)


def test_the_built_in_machines_are_a_mapping() -> None:
    assert len(tc.machines) == len(list(tc.machines))
    assert tc.machines["e5-2699v4"].name == "broadwell-ep-e5-2699v4"
    assert "e5-2699v4" not in list(tc.machines)
    assert 5 not in tc.machines
    assert repr(tc.machines).startswith("machines(haswell-ep-e5-2699v3, ")
    assert tc.machines._ipython_key_completions_() == list(tc.machines)  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="no machine is called"):
        tc.machines["zen3"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tc.machine(5), "a machine is a name, a file or a Machine: got 5"),
        (lambda: tc.machine(b"x.toml"), "a machine is a name, a file or a Machine: got b'x.toml'"),
        (lambda: tc.machine("zen3"), 'no machine is called "zen3"; did you mean "zen3-epyc"?'),
        (lambda: tc.Machine(name=5), "the name of a machine is a text: got 5"),
        (lambda: tc.Machine(name="x", text=5), "the text of a machine is a text: got 5"),
        (lambda: tc.Machine(name=None), "the name of a machine is a text: got None"),
    ],
)
def test_what_is_no_machine(make: Callable[[], object], said: str) -> None:
    with pytest.raises(tc.TlbError) as found:
        make()
    assert str(found.value) == said
