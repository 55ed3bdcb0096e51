"""What strangers meet first: metadata, contributing, issue forms, workflows, the checks of wheels and skips."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from tests.skips import known, unlisted

import tlbcore as tc

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOME = PROJECT["urls"]["Homepage"]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_one_version_everywhere():
    version = tomllib.loads(text("Cargo.toml"))["package"]["version"]
    assert re.search(rf"^version: {re.escape(version)}$", text("CITATION.cff"), re.MULTILINE)
    assert re.search(r"^## (\S+)", text("CHANGELOG.md"), re.MULTILINE)[1] == version


def test_links_of_the_readme_work_on_the_index():
    """The package index shows README without the files beside it."""
    targets = re.findall(r"\]\(([^)]+)\)", text("README.md"))
    assert targets
    for target in targets:
        assert target.startswith("https://"), f"{target} leads nowhere on the index"
        if found := re.match(rf"{HOME}/(blob|raw)/main/([^#]+)", target):
            assert (ROOT / found[2]).exists(), target
            assert (found[1] == "raw") == target.endswith(".png"), "an image is shown from its bytes"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"])
def test_links_of_the_pages_at_the_top_lead_somewhere(page: str):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text(page)):
        assert (ROOT / target).exists(), target


def test_every_python_that_is_tested_is_classified():
    tested = set(re.findall(r'"(3\.\d+)"', text(".github/workflows/test.yml")))
    classified = {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert tested == classified
    assert PROJECT["requires-python"] == f">={min(classified, key=lambda v: int(v.split('.')[1]))}"


def test_the_policy_of_contributing_is_what_the_page_says_of_it(tmp_path: Path):
    found = re.search(r"^```text policy\n(.*?)^```$", text("CONTRIBUTING.md"), re.MULTILINE | re.DOTALL)
    assert found is not None
    file = tmp_path / "enter.policy"
    file.write_text(found[1])
    verdict = tc.check(file)
    assert verdict.status == "violated"
    assert verdict.counterexample is not None
    assert any("in_kernel = 1" in step.what for step in verdict.counterexample.steps), "the store that waits"


def test_what_contributing_names_exists():
    for target in re.findall(r"`((?:src|tests|docs|fuzz)/[\w./-]+?)/?`", text("CONTRIBUTING.md")):
        assert (ROOT / target).exists() or "NAME" in target, target
    for command in re.findall(r"^make (\w+)", text("CONTRIBUTING.md"), re.MULTILINE):
        assert re.search(rf"^{command}:", text("Makefile"), re.MULTILINE), command


def test_issue_forms_ask_for_what_doctor_prints():
    for name in ("fault", "verdict"):
        assert "`tlbcore doctor`" in text(f".github/ISSUE_TEMPLATE/{name}.yml")
    printed = subprocess.run(
        [sys.executable, "-m", "tlbcore", "doctor"], capture_output=True, text=True, check=True
    ).stdout
    for word in ("version: ", "cpu: ", "kernel: ", "features: ", "numpy: "):
        assert f"  {word}" in printed
    assert f"version: {tc.__version__}\n" in printed


def test_doctor_works_without_the_command_lines_packages():
    script = (
        "import sys; sys.modules['typer'] = None; from tlbcore.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "packages:" in done.stdout


def test_doctor_finds_a_core_that_does_not_load():
    script = (
        "import sys; sys.modules['tlbcore._core'] = None\n"
        "from tlbcore._input import doctor; print('\\n'.join(doctor.problems(doctor.facts())))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the compiled core does not load: ")


def test_workflows_pass_actionlint():
    lint = shutil.which("actionlint")
    if lint is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run(
        [lint, *map(str, (ROOT / ".github/workflows").glob("*.yml"))], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode()


def test_workflows_give_no_rights_by_default():
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        assert "\npermissions: {}\n" in workflow.read_text(), workflow.name


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SBOM = {
    "serialNumber": "urn:uuid:1",
    "metadata": {
        "timestamp": "2026-01-01T00:00:00Z",
        "component": {"bom-ref": "path+file:///home/me/tlbcore#tlbcore@1"},
    },
}


def elf(text: bytes, *sections: bytes) -> bytes:
    """A file with that text and sections of those names, as far as headers go."""
    names = b"\0".join([b"", *sections, b".shstrtab", b""])
    at = [0, *(names.index(section + b"\0") for section in (*sections, b".shstrtab"))]
    start = 64 + len(text)
    head = struct.pack("<4s36xQ10xHHH", b"\x7fELF", start + len(names), 64, len(at), len(at) - 1)
    rows = b"".join(struct.pack("<I20xQ32x", place, start) for place in at)
    return head + text + names + rows


def wheel(folder: Path, **changed: bytes | None) -> Path:
    files: dict[str, bytes] = {
        "tlbcore/py.typed": b"",
        "tlbcore/_core.pyi": b"x",
        "tlbcore/_core.abi3.so": elf(b"at /cargo/registry/src/lib.rs, .symtab of a backtrace", b".text"),
        "tlbcore/data/schemas/check.json": b"{}",
        "tlbcore-1.dist-info/licenses/LICENSE-MIT": b"MIT",
        "tlbcore-1.dist-info/sboms/tlbcore.cyclonedx.json": json.dumps(SBOM).encode(),
        "tlbcore-1.dist-info/RECORD": b"tlbcore/py.typed,,\n",
    }
    for name, data in changed.items():
        key = next(key for key in files if key.endswith(name.replace("__", ".")))
        files[key] = data if data is not None else files[key]
        if data is None:
            del files[key]
    path = folder / "tlbcore-1-cp311-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def test_a_finished_wheel_passes_the_check_and_an_unfinished_one_does_not(tmp_path: Path):
    check, finish = script("check_wheel"), script("finish_wheel")
    path = wheel(tmp_path)
    assert check.faults(path) == [
        "tlbcore-1.dist-info/sboms/tlbcore.cyclonedx.json says where it was built: /home/me/tlbcore"
    ]
    finish.finish(path, 0)
    assert check.faults(path) == []


def test_finishing_gives_the_same_bytes_and_a_record_that_is_true(tmp_path: Path):
    import base64
    import hashlib

    finish = script("finish_wheel")
    once = wheel(tmp_path)
    finish.finish(once, 86400)
    first = once.read_bytes()
    other = {**SBOM, "serialNumber": "urn:uuid:2"}
    again = wheel(tmp_path, cyclonedx__json=json.dumps(other).encode())
    finish.finish(again, 86400)
    assert again.read_bytes() == first, "random numbers and times are gone"
    with zipfile.ZipFile(again) as files:
        rows = [line.split(",") for line in files.read("tlbcore-1.dist-info/RECORD").decode().splitlines()]
        assert {row[0] for row in rows} == set(files.namelist())
        for name, digest, size in rows:
            if not name.endswith("RECORD"):
                data = files.read(name)
                made = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, size) == (f"sha256={made}", str(len(data)))
        sbom = json.loads(files.read("tlbcore-1.dist-info/sboms/tlbcore.cyclonedx.json"))
    assert sbom["metadata"]["timestamp"] == "1970-01-02T00:00:00+00:00"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"py__typed": None}, "lacks py.typed"),
        ({"cyclonedx__json": None}, "lacks sboms/tlbcore.cyclonedx.json"),
        ({"abi3__so": elf(b"", b".text", b".symtab")}, "is not stripped"),
        ({"abi3__so": elf(b"", b".debug_info", b".text")}, "is not stripped"),
        ({"abi3__so": elf(b"at /home/me/src/lib.rs:3")}, "says where it was built: /home/me/src/lib.rs"),
        (
            {"abi3__so": elf(b"at /root/.cargo/registry/src/x.rs")},
            "says where it was built: /root/.cargo/registry/src/x.rs",
        ),
    ],
)
def test_a_wheel_that_is_not_as_it_must_be_is_told(changed, said: str, tmp_path: Path):
    finish, check = script("finish_wheel"), script("check_wheel")
    path = wheel(tmp_path, **changed)
    finish.finish(path, 0)
    assert any(said in fault for fault in check.faults(path))
    renamed = path.rename(path.with_name("tlbcore-1-cp311-abi3-linux_x86_64.whl"))
    assert "has the tag linux, which the index refuses" in check.faults(renamed)


def test_skips_that_no_list_knows_are_found(tmp_path: Path):
    listed = tmp_path / "skips"
    listed.write_text("# why\n^needs spin$  # installed elsewhere\n\nno guest:\n")
    reasons = Counter({"needs spin": 3, "needs spin and more": 1, "no guest: no qemu": 2, "because": 1})
    assert unlisted(reasons, known([str(listed)])) == ["because", "needs spin and more"]
    assert unlisted(reasons, []) == sorted(reasons)


def test_a_run_with_an_unlisted_skip_fails_and_names_it(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pytest.skip('odd reason')\ndef test_b(): pass\n"
    )
    (tmp_path / "none").write_text("")
    (tmp_path / "some").write_text("odd\n")

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.skips",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
        ]
        return subprocess.run(
            [*command, str(tmp_path / "test_it.py"), *more],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        )

    assert run().returncode == 0
    refused = run("--known-skips", str(tmp_path / "none"))
    assert refused.returncode == 1
    assert "a skip that no list knows: odd reason" in refused.stdout
    taken = run("--known-skips", str(tmp_path / "none"), "--known-skips", str(tmp_path / "some"))
    assert taken.returncode == 0
    assert "1 odd reason" in taken.stdout


def test_what_passed_is_written_down_and_not_asked_again(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(
        "import os, pytest\n"
        "@pytest.fixture\n"
        "def ends_badly():\n"
        "    yield\n"
        "    assert 'GOOD' in os.environ\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 'GOOD' in os.environ\n"
        "def test_is_skipped(): pytest.skip('so')\n"
        "def test_ends_badly(ends_badly): pass\n"
        "@pytest.mark.xfail(strict=False)\n"
        "def test_is_expected_to_fail(): pass\n"
    )
    passed = tmp_path / "passed"

    def run(*more: str, workers: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        command = (
            f"{sys.executable} -m pytest -q -p tests.passed -p no:cacheprovider -c /dev/null -n {workers}"
        )
        kept = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
        return subprocess.run(
            [*command.split(), f"--rootdir={tmp_path}", str(tmp_path / "test_it.py"), *more],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**kept, **env},
        )

    assert run("--passed-to", str(passed), workers=2).returncode == 1
    assert [name.rpartition("::")[2] for name in passed.read_text().splitlines()] == ["test_passes"]
    again = run("--passed-before", str(passed), GOOD="1")
    assert again.returncode == 0
    assert "2 passed, 1 skipped" in again.stdout
    assert "1 tests are named as passed before" in again.stdout


def test_an_argued_survivor_is_a_mutant_of_a_line_that_is_there():
    argued = tomllib.loads((ROOT / "tests" / "data" / "survivors.toml").read_text())
    assert argued
    for module, rows in argued.items():
        source = ((ROOT if module.startswith("src/") else Path(tc.__file__).parent) / module).read_text()
        for row in rows:
            assert row["why"].endswith(".")
            lines = [line.strip() for line in source.splitlines()]
            assert row["line"].strip() not in lines, "that is no mutant"
            if module.startswith("src/"):
                assert row["was"] in lines, module
            elif row["line"].startswith("without "):
                assert row["line"].removeprefix("without ") in lines, module
            else:
                assert difflib.get_close_matches(row["line"], lines, cutoff=0.8), module


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ((), ""),
        (("--zig",), "--compatibility manylinux_2_28"),
        (("--zig", "--target", "aarch64-unknown-linux-gnu"), "--compatibility manylinux_2_28"),
        (("--zig", "--target", "x86_64-unknown-linux-musl"), "--compatibility musllinux_1_2"),
        (("--zig", "--compatibility", "manylinux_2_34"), ""),
    ],
)
def test_a_wheel_for_the_index_runs_on_old_systems(given: tuple[str, ...], asked: str, tmp_path: Path):
    """The builder's own libc is newer than most."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, does in {"maturin": f'echo "$RUSTFLAGS | $*" > {tmp_path}/said', "rustc": "echo /rust"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "dist").mkdir()
    path = f"{tools}:{os.environ['PATH']}"
    subprocess.run(["bash", tmp_path / ".ci/wheel", *given], check=True, env={**os.environ, "PATH": path})
    flags, _, said = (tmp_path / "said").read_text().strip().partition(" | ")
    assert f"--remap-path-prefix={tmp_path}=/tlbcore" in flags
    assert said == " ".join(["build --profile wheel --locked --out dist", *given, asked]).strip()
