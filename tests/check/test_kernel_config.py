"""A kernel from keywords, or from its configuration file, command line and meltdown state."""

from __future__ import annotations

import gzip
import pickle

import pytest

import tlbcore as tc

CONFIG = """#
# Linux/x86 6.12.0 Kernel Configuration
#
CONFIG_X86_64=y
CONFIG_MITIGATION_PAGE_TABLE_ISOLATION=y
CONFIG_NO_HZ_FULL=y
CONFIG_CONTEXT_TRACKING_USER=y
CONFIG_VMAP_STACK=y
CONFIG_NR_CPUS=8192
# CONFIG_COALESCE_TLBI is not set
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / ".config"
    path.write_text(CONFIG)
    return path


def test_a_configuration_file_gives_the_kernel(config):
    kernel, remarks, isolated = tc.Kernel.from_config(config, cmdline="quiet nohz_full=2-3 nopcid")
    assert kernel == tc.Kernel(nopcid=True)
    assert isolated == (2, 3)
    assert tc.scenarios.quiet(isolated=isolated).isolated == (2, 3)
    assert any("nopcid" in remark for remark in remarks)


def test_a_compressed_configuration_gives_the_same(config, tmp_path):
    packed = tmp_path / "config.gz"
    packed.write_bytes(gzip.compress(CONFIG.encode()))
    assert tc.Kernel.from_config(packed) == tc.Kernel.from_config(config)
    config.write_text(CONFIG, encoding="utf-8-sig")
    assert tc.Kernel.from_config(packed) == tc.Kernel.from_config(config)


@pytest.mark.parametrize(
    ("cmdline", "meltdown", "pti"),
    [
        ("", None, None),
        ("pti=on", None, True),
        ("pti=off", None, False),
        ("nopti", None, False),
        ("mitigations=off", None, False),
        ("mitigations=auto,nosmt", None, None),
        ("", "Mitigation: PTI\n", True),
        ("", "Not affected", False),
        ("", "Vulnerable", False),
    ],
)
def test_what_decides_page_table_isolation(config, cmdline, meltdown, pti):
    kernel, _, isolated = tc.Kernel.from_config(config, cmdline=cmdline, meltdown=meltdown)
    assert kernel.pti is pti
    assert isolated == ()


@pytest.mark.parametrize(
    ("cmdline", "pti", "said"), [("pti=on", None, True), ("pti=off", False, False), ("", None, False)]
)
def test_what_is_not_built_in_is_not_turned_on_and_that_is_said(tmp_path, cmdline, pti, said):
    path = tmp_path / "config"
    path.write_text(CONFIG.replace("CONFIG_MITIGATION_PAGE_TABLE_ISOLATION=y", ""))
    kernel, remarks, _ = tc.Kernel.from_config(path, cmdline=cmdline)
    assert (kernel.pti_built_in, kernel.pti) == (False, pti)
    assert ("pti=on has no effect: MITIGATION_PAGE_TABLE_ISOLATION is not set" in remarks) is said


def test_the_name_of_the_option_before_6_9_is_known(tmp_path):
    path = tmp_path / "config"
    path.write_text(CONFIG.replace("MITIGATION_PAGE_TABLE_ISOLATION", "PAGE_TABLE_ISOLATION"))
    assert tc.Kernel.from_config(path)[0].pti_built_in


@pytest.mark.parametrize(
    ("change", "cmdline", "meltdown", "text"),
    [
        (("CONFIG_X86_64=y", "CONFIG_ARM64=y"), "", None, "only x86-64"),
        (("CONFIG_VMAP_STACK=y", "hello world"), "", None, r":8: not a line"),
        (("", ""), "nohz_full=3-2", None, "command line: nohz_full=3-2: a range of CPUs must rise"),
        (("", ""), "isolcpus=nohz,2-x", None, "isolcpus=nohz,2-x: a CPU list is numbers and ranges"),
        (("", ""), "pti=maybe", None, "pti= takes on, off or auto: got maybe"),
        (("", ""), "", "Sort of affected", "none that Linux prints"),
        (
            ("# CONFIG_COALESCE_TLBI is not set", "CONFIG_COALESCE_TLBI=y\n# CONFIG_X is not set"),
            "",
            None,
            None,
        ),
        (("CONFIG_MITIGATION_PAGE_TABLE_ISOLATION=y", ""), "", "Mitigation: PTI", "contradicts"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path, change, cmdline, meltdown, text):
    path = tmp_path / ".config"
    path.write_text(CONFIG.replace(*change) if change[0] else CONFIG)
    if text is None:
        assert tc.Kernel.from_config(path, cmdline=cmdline)[0].coalesce_tlbi
        return
    with pytest.raises(tc.ConfigError, match=text):
        tc.Kernel.from_config(path, cmdline=cmdline, meltdown=meltdown)


def test_a_file_that_is_no_configuration_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    with pytest.raises(tc.ConfigError, match="not a kernel configuration"):
        tc.Kernel.from_config(path)
    path.write_bytes(gzip.compress(CONFIG.encode())[:-20])
    with pytest.raises(tc.ConfigError, match=r"notes\.txt"):
        tc.Kernel.from_config(path)
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(tc.ConfigError, match=r"notes\.txt"):
        tc.Kernel.from_config(path)
    with pytest.raises(OSError, match="missing"):
        tc.Kernel.from_config(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        tc.Kernel.from_config(tmp_path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"coalesce_tlbi": True, "pti_built_in": False}, "MITIGATION_PAGE_TABLE_ISOLATION is not set"),
        ({"coalesce_tlbi": True, "no_hz_full": False}, "NO_HZ_FULL is not set"),
        ({"track_cr3": True, "pti_built_in": False}, "TRACK_CR3 depends on"),
        ({"no_hz_full": True, "context_tracking": False}, "CONTEXT_TRACKING_USER"),
        ({"pti": True, "pti_built_in": False}, "pti=on needs"),
        ({"flush_ceiling": -1}, "flush_ceiling must be .* got -1"),
    ],
)
def test_kconfig_dependencies_are_named(options, text):
    with pytest.raises(tc.ConfigError, match=text):
        tc.Kernel(**options)


def test_inert_policies_are_explained():
    kernel = tc.Kernel()
    (why,) = kernel.inert("coalesce-v7", "cascade-lake-sp")
    assert "not affected by Meltdown" in why
    assert kernel.inert("coalesce-v7", "broadwell-ep") == ()
    assert "pti=off" in kernel.replace(pti=False).inert("coalesce-v7", "broadwell-ep")[0]
    assert "no INVLPGB" in kernel.inert("invlpgb", "broadwell-ep")[0]
    assert "no CPU is isolated" in kernel.inert("ct-late", "zen4-epyc", isolated=False)[0]
    assert kernel.inert("ct-late", "zen4-epyc") == ()


def test_a_kernel_is_frozen_data():
    kernel = tc.Kernel(pti=True)
    assert pickle.loads(pickle.dumps(kernel)) == kernel
    assert eval(repr(kernel), {"Kernel": tc.Kernel}) == kernel
    with pytest.raises(AttributeError):
        kernel.pti = False  # type: ignore[misc]
