"""Every `--json` output follows the schema that `tlbcore schema` publishes for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.schemas import COMMANDS, FOLDER, OTHERS, common, document, outputs

import tlbcore

NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))


def schema(name: str) -> dict[str, object]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def unknown(value: object, of: dict[str, Any], at: str = "") -> Iterator[str]:
    """Yield the places of keys of which a schema knows nothing."""
    if isinstance(value, dict):
        names = of.get("properties", {})
        for key, each in value.items():
            more = names.get(key, of.get("additionalProperties"))
            if more is None:
                yield f"{at}.{key}"
            else:
                yield from unknown(each, more, f"{at}.{key}")
    elif isinstance(value, list):
        for each in value:
            yield from unknown(each, of.get("items", {}), f"{at}[]")


def follows(value: object, of: dict[str, object]) -> bool:
    return jsonschema.Draft202012Validator(of).is_valid(value)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_what_a_command_prints_follows_its_schema(name: str):
    validator = jsonschema.Draft202012Validator(schema(name))
    printed = list(outputs(name))
    for each in printed:
        validator.validate(each)
        assert not set(unknown(each, schema(name))), "make it anew: python -m tests.schemas"
        for key in each:  # a schema that asks for nothing would pass everything
            if key in schema(name)["required"]:
                assert not validator.is_valid({k: v for k, v in each.items() if k != key}), key
        assert not validator.is_valid({**each, "version": 99})


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_names_itself(name: str):
    jsonschema.Draft202012Validator.check_schema(schema(name))
    assert schema(name)["title"] == f"tlbcore.{name}"
    assert schema(name)["description"]
    assert {"schema", "version"} <= set(schema(name)["required"])
    assert schema(name)["properties"]["schema"] == {"const": f"tlbcore.{name}"}


def test_every_name_that_the_program_prints_has_a_schema():
    source = "".join(file.read_text() for file in Path(tlbcore.__file__).parent.rglob("*.py"))
    printed = {
        *re.findall(r'(?:print_json|document)\(\s*"([\w-]+)"', source),
        *re.findall(r'"schema": "tlbcore\.([\w-]+)"', source),
    }
    assert printed == set(NAMES)
    assert printed == {*COMMANDS, *OTHERS}


def tlbcore_schema(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlbcore", "schema", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_lists_and_prints_them():
    assert tlbcore_schema().stdout.split() == NAMES
    assert json.loads(tlbcore_schema("check").stdout) == schema("check")
    assert tlbcore_schema("tlbcore.check").stdout == tlbcore_schema("check").stdout
    refused = tlbcore_schema("chek")
    assert (refused.returncode, refused.stderr) == (
        2,
        "tlbcore: error: unknown schema 'chek', did you mean 'check'?\n",
    )


def test_the_schema_of_causes_is_the_one_that_the_catalogue_gives():
    done = subprocess.run(
        [sys.executable, "-m", "tlbcore", "causes", "--schema"], capture_output=True, check=False
    )
    assert json.loads(done.stdout) == schema("causes")


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_what_the_others_print_follows_its_schema_too(name: str):
    printed = OTHERS[name][1]()
    assert all(follows(each, schema(name)) for each in printed)
    assert not any(follows({**each, "version": 99}, schema(name)) for each in printed)


def test_a_row_of_the_verdict_table_is_printed_as_the_schema_has_it(capsys, monkeypatch):
    from tlbcore import checker
    from tlbcore.cli import main

    row = checker.Row(
        policy="ipi", world="pti", defers="purge", cpus=2, nmis=0, asids=1, danger="none", bodies="none",
        text="instr", invpcid="ordered", status="violated", rule="stale_access", states=7, unseen=(), stated="verified",
    )  # fmt: skip
    cell = checker.Cell(policy="ipi", world="pti", linux="6.12", status="verified")
    monkeypatch.setattr(checker, "verdict_table", lambda **_: [row])
    monkeypatch.setattr(checker, "world_table", lambda **_: [cell])
    assert main(["check", "--all", "--json"]) == 1
    assert follows(json.loads(capsys.readouterr().out), schema("verdicts"))


@pytest.mark.parametrize(
    ("values", "good", "bad"),
    [
        ([{"a": 1, "b": "x"}, {"a": 2.5}], [{"a": None}, {"a": 1, "c": 3}], [{}, {"b": "x"}, {"a": "1"}]),
        ([{"2-3": 1}, {"4": 2}], [{}, {"9": 3}], [{"9": "x"}]),
        ([[1, "x"], []], [[2], []], [[True], {}]),
        ([None, "x"], [None, "y"], [1]),
    ],
)
def test_a_schema_made_of_examples_takes_what_is_alike_and_nothing_else(values, good, bad):
    made = common(values)
    assert all(follows(value, made) for value in [*values, *good])
    assert not any(follows(value, made) for value in bad)


def test_a_document_is_of_its_name_and_version():
    made = document("thing", "A thing.", [{"schema": "tlbcore.thing", "version": 1, "n": 3}])
    assert follows({"schema": "tlbcore.thing", "version": 1, "n": 4}, made)
    assert not follows({"schema": "tlbcore.other", "version": 1, "n": 4}, made)
