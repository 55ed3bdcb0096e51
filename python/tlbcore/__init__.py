"""Who interrupts isolated CPUs, is a TLB-flush deferral safe, and what does it cost?

Everything public is imported on first use, so `tlbcore --help` loads neither NumPy nor the compiled core.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same list for type checkers, tested against the table below
    from tlbcore._core import CheckError as CheckError
    from tlbcore._core import ConfigError as ConfigError
    from tlbcore._core import ImageError as ImageError
    from tlbcore._core import PolicyError as PolicyError
    from tlbcore._core import SimError as SimError
    from tlbcore._core import SweepError as SweepError
    from tlbcore._core import TlbcoreError as TlbcoreError
    from tlbcore._core import TlbError as TlbError
    from tlbcore._core import TraceError as TraceError
    from tlbcore._core import __version__ as __version__
    from tlbcore._output.result import InertPolicyWarning as InertPolicyWarning
    from tlbcore._output.result import Result as Result
    from tlbcore._output.result import load as load
    from tlbcore.address_traces import AddressChunk as AddressChunk
    from tlbcore.address_traces import Addresses as Addresses
    from tlbcore.address_traces import addresses as addresses
    from tlbcore.checker import Bounds as Bounds
    from tlbcore.checker import Counterexample as Counterexample
    from tlbcore.checker import LitmusResult as LitmusResult
    from tlbcore.checker import Verdict as Verdict
    from tlbcore.checker import check as check
    from tlbcore.checker import litmus as litmus
    from tlbcore.checker import necessary as necessary
    from tlbcore.checker import repair as repair
    from tlbcore.checker import verdict_table as verdict_table
    from tlbcore.checker import world_table as world_table
    from tlbcore.hardware import Machine as Machine
    from tlbcore.hardware import machine as machine
    from tlbcore.hardware import machines as machines
    from tlbcore.inspect import Host as Host
    from tlbcore.inspect import inspect_host as inspect_host
    from tlbcore.inspect.calibration import Calibration as Calibration
    from tlbcore.inspect.calibration import calibrate as calibrate
    from tlbcore.kernel import Kernel as Kernel
    from tlbcore.policy import Policy as Policy
    from tlbcore.policy import as_policy as as_policy
    from tlbcore.policy import policies as policies
    from tlbcore.scenarios import Actor as Actor
    from tlbcore.scenarios import Scenario as Scenario
    from tlbcore.simulation.compare import Comparison as Comparison
    from tlbcore.simulation.compare import compare as compare
    from tlbcore.simulation.figures import Figure as Figure
    from tlbcore.simulation.figures import Statistic as Statistic
    from tlbcore.simulation.figures import figures as figures
    from tlbcore.simulation.figures import statistics as statistics
    from tlbcore.simulation.run import SimResult as SimResult
    from tlbcore.simulation.run import simulate as simulate
    from tlbcore.sweeps.break_even import break_even as break_even
    from tlbcore.sweeps.run import Sweep as Sweep
    from tlbcore.sweeps.run import read_sweep as read_sweep
    from tlbcore.sweeps.run import sweep as sweep
    from tlbcore.tlb import EVENT as EVENT
    from tlbcore.tlb import FLAGS as FLAGS
    from tlbcore.tlb import OPS as OPS
    from tlbcore.tlb import MissCurve as MissCurve
    from tlbcore.tlb import Tlb as Tlb
    from tlbcore.tlb import TlbResult as TlbResult
    from tlbcore.tlb import miss_curve as miss_curve
    from tlbcore.trace import Trace as Trace
    from tlbcore.trace import causes as causes
    from tlbcore.trace import read_trace as read_trace
    from tlbcore.trace.explanation import Explanation as Explanation
    from tlbcore.trace.explanation import explain as explain
    from tlbcore.trace.replayed import Replay as Replay
    from tlbcore.trace.replayed import replay as replay
    from tlbcore.trace.shootdown import Shootdowns as Shootdowns
    from tlbcore.trace.shootdown import shootdowns as shootdowns
    from tlbcore.trace.what_if import Flush as Flush
    from tlbcore.trace.what_if import user_flushes as user_flushes
    from tlbcore.trace.what_if import what_if as what_if
    from tlbcore.translation import Translation as Translation
    from tlbcore.translation import translate as translate
    from tlbcore.validation.published import Validation as Validation
    from tlbcore.validation.published import validate as validate
    from tlbcore.verdicts import Need as Need
    from tlbcore.verdicts import Needs as Needs
    from tlbcore.verdicts import Repair as Repair
    from tlbcore.verdicts import Repairs as Repairs
    from tlbcore.verdicts import VerdictTable as VerdictTable
    from tlbcore.verdicts import WorldTable as WorldTable

# name -> module that defines it; one line per public name
_EXPORTS: dict[str, str] = {
    "__version__": "tlbcore._core",
    "TlbcoreError": "tlbcore._core",
    "Sweep": "tlbcore.sweeps.run",
    "break_even": "tlbcore.sweeps.break_even",
    "read_sweep": "tlbcore.sweeps.run",
    "sweep": "tlbcore.sweeps.run",
    "InertPolicyWarning": "tlbcore._output.result",
    "Result": "tlbcore._output.result",
    "load": "tlbcore._output.result",
    "AddressChunk": "tlbcore.address_traces",
    "Addresses": "tlbcore.address_traces",
    "Translation": "tlbcore.translation",
    "addresses": "tlbcore.address_traces",
    "translate": "tlbcore.translation",
    "EVENT": "tlbcore.tlb",
    "FLAGS": "tlbcore.tlb",
    "Machine": "tlbcore.hardware",
    "MissCurve": "tlbcore.tlb",
    "OPS": "tlbcore.tlb",
    "Tlb": "tlbcore.tlb",
    "TlbResult": "tlbcore.tlb",
    "machine": "tlbcore.hardware",
    "machines": "tlbcore.hardware",
    "miss_curve": "tlbcore.tlb",
    "Calibration": "tlbcore.inspect.calibration",
    "calibrate": "tlbcore.inspect.calibration",
    "Host": "tlbcore.inspect",
    "Kernel": "tlbcore.kernel",
    "Actor": "tlbcore.scenarios",
    "Scenario": "tlbcore.scenarios",
    "Comparison": "tlbcore.simulation.compare",
    "Figure": "tlbcore.simulation.figures",
    "SimResult": "tlbcore.simulation.run",
    "Statistic": "tlbcore.simulation.figures",
    "compare": "tlbcore.simulation.compare",
    "figures": "tlbcore.simulation.figures",
    "simulate": "tlbcore.simulation.run",
    "statistics": "tlbcore.simulation.figures",
    "Validation": "tlbcore.validation.published",
    "validate": "tlbcore.validation.published",
    "inspect_host": "tlbcore.inspect",
    "Bounds": "tlbcore.checker",
    "Counterexample": "tlbcore.checker",
    "Verdict": "tlbcore.checker",
    "LitmusResult": "tlbcore.checker",
    "Need": "tlbcore.verdicts",
    "Needs": "tlbcore.verdicts",
    "Repair": "tlbcore.verdicts",
    "Repairs": "tlbcore.verdicts",
    "VerdictTable": "tlbcore.verdicts",
    "WorldTable": "tlbcore.verdicts",
    "necessary": "tlbcore.checker",
    "repair": "tlbcore.checker",
    "verdict_table": "tlbcore.checker",
    "world_table": "tlbcore.checker",
    "check": "tlbcore.checker",
    "litmus": "tlbcore.checker",
    "Policy": "tlbcore.policy",
    "as_policy": "tlbcore.policy",
    "policies": "tlbcore.policy",
    "CheckError": "tlbcore._core",
    "ConfigError": "tlbcore._core",
    "ImageError": "tlbcore._core",
    "PolicyError": "tlbcore._core",
    "SimError": "tlbcore._core",
    "SweepError": "tlbcore._core",
    "TlbError": "tlbcore._core",
    "TraceError": "tlbcore._core",
    "Explanation": "tlbcore.trace.explanation",
    "Replay": "tlbcore.trace.replayed",
    "Trace": "tlbcore.trace",
    "causes": "tlbcore.trace",
    "explain": "tlbcore.trace.explanation",
    "read_trace": "tlbcore.trace",
    "replay": "tlbcore.trace.replayed",
    "Flush": "tlbcore.trace.what_if",
    "user_flushes": "tlbcore.trace.what_if",
    "what_if": "tlbcore.trace.what_if",
    "Shootdowns": "tlbcore.trace.shootdown",
    "shootdowns": "tlbcore.trace.shootdown",
}

# Modules that are namespaces of their own: `tlbcore.scenarios.rteval()`, `tlbcore.plot.latency(axes, ...)`.
_MODULES = ("analysis", "op", "plot", "scenarios")

__all__ = sorted([*_EXPORTS, *_MODULES])


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"tlbcore.{name}")
    raise AttributeError(f"module 'tlbcore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_MODULES})
