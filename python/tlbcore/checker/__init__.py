"""The checker: verify a policy within stated bounds, or get an interleaving that breaks it."""

from tlbcore.checker.edits import necessary, repair
from tlbcore.checker.litmus_file import LitmusResult, litmus
from tlbcore.checker.question import Bounds
from tlbcore.checker.search import check
from tlbcore.checker.table import verdict_table
from tlbcore.checker.verdict import HYPOTHESIS, Counterexample, Step, TimedReplay, Verdict
from tlbcore.checker.worlds import world_table
from tlbcore.verdicts import Cell, Need, Needs, Repair, Repairs, Row, VerdictTable, WorldTable

__all__ = [
    "HYPOTHESIS",
    "Bounds",
    "Cell",
    "Counterexample",
    "LitmusResult",
    "Need",
    "Needs",
    "Repair",
    "Repairs",
    "Row",
    "Step",
    "TimedReplay",
    "Verdict",
    "VerdictTable",
    "WorldTable",
    "check",
    "litmus",
    "necessary",
    "repair",
    "verdict_table",
    "world_table",
]
