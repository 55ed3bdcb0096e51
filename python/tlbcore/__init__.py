"""Who interrupts isolated CPUs, is a TLB-flush deferral safe, and what does it cost?

Everything public is imported on first use, so `tlbcore --help` loads neither NumPy nor the compiled core.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same list for type checkers, tested against the table below
    from tlbcore._calibrate import Calibration as Calibration
    from tlbcore._calibrate import calibrate as calibrate
    from tlbcore._core import CheckError as CheckError
    from tlbcore._core import ConfigError as ConfigError
    from tlbcore._core import PolicyError as PolicyError
    from tlbcore._core import SimError as SimError
    from tlbcore._core import SweepError as SweepError
    from tlbcore._core import TlbcoreError as TlbcoreError
    from tlbcore._core import TlbError as TlbError
    from tlbcore._core import TraceError as TraceError
    from tlbcore._core import __version__ as __version__
    from tlbcore._explain import Explanation as Explanation
    from tlbcore._explain import explain as explain
    from tlbcore._machines import Machine as Machine
    from tlbcore._machines import machine as machine
    from tlbcore._machines import machines as machines
    from tlbcore._replay import Replay as Replay
    from tlbcore._replay import replay as replay
    from tlbcore._simulate import Comparison as Comparison
    from tlbcore._simulate import SimResult as SimResult
    from tlbcore._simulate import compare as compare
    from tlbcore._simulate import simulate as simulate
    from tlbcore._simulate import statistics as statistics
    from tlbcore._sweep import Sweep as Sweep
    from tlbcore._sweep import break_even as break_even
    from tlbcore._sweep import read_sweep as read_sweep
    from tlbcore._sweep import sweep as sweep
    from tlbcore._validate import Validation as Validation
    from tlbcore._validate import validate as validate
    from tlbcore.checker import Bounds as Bounds
    from tlbcore.checker import Counterexample as Counterexample
    from tlbcore.checker import LitmusResult as LitmusResult
    from tlbcore.checker import Need as Need
    from tlbcore.checker import Repair as Repair
    from tlbcore.checker import Verdict as Verdict
    from tlbcore.checker import check as check
    from tlbcore.checker import litmus as litmus
    from tlbcore.checker import necessary as necessary
    from tlbcore.checker import repair as repair
    from tlbcore.checker import verdict_table as verdict_table
    from tlbcore.inspect import Host as Host
    from tlbcore.inspect import inspect_host as inspect_host
    from tlbcore.kernel import Kernel as Kernel
    from tlbcore.policy import Policy as Policy
    from tlbcore.policy import as_policy as as_policy
    from tlbcore.policy import policies as policies
    from tlbcore.scenarios import Actor as Actor
    from tlbcore.scenarios import Scenario as Scenario
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

# name -> module that defines it; one line per public name
_EXPORTS: dict[str, str] = {
    "__version__": "tlbcore._core",
    "TlbcoreError": "tlbcore._core",
    "Sweep": "tlbcore._sweep",
    "break_even": "tlbcore._sweep",
    "read_sweep": "tlbcore._sweep",
    "sweep": "tlbcore._sweep",
    "EVENT": "tlbcore.tlb",
    "FLAGS": "tlbcore.tlb",
    "Machine": "tlbcore._machines",
    "MissCurve": "tlbcore.tlb",
    "OPS": "tlbcore.tlb",
    "Tlb": "tlbcore.tlb",
    "TlbResult": "tlbcore.tlb",
    "machine": "tlbcore._machines",
    "machines": "tlbcore._machines",
    "miss_curve": "tlbcore.tlb",
    "Calibration": "tlbcore._calibrate",
    "calibrate": "tlbcore._calibrate",
    "Host": "tlbcore.inspect",
    "Kernel": "tlbcore.kernel",
    "Actor": "tlbcore.scenarios",
    "Scenario": "tlbcore.scenarios",
    "Comparison": "tlbcore._simulate",
    "SimResult": "tlbcore._simulate",
    "compare": "tlbcore._simulate",
    "simulate": "tlbcore._simulate",
    "statistics": "tlbcore._simulate",
    "Validation": "tlbcore._validate",
    "validate": "tlbcore._validate",
    "inspect_host": "tlbcore.inspect",
    "Bounds": "tlbcore.checker",
    "Counterexample": "tlbcore.checker",
    "Verdict": "tlbcore.checker",
    "LitmusResult": "tlbcore.checker",
    "Need": "tlbcore.checker",
    "Repair": "tlbcore.checker",
    "necessary": "tlbcore.checker",
    "repair": "tlbcore.checker",
    "verdict_table": "tlbcore.checker",
    "check": "tlbcore.checker",
    "litmus": "tlbcore.checker",
    "Policy": "tlbcore.policy",
    "as_policy": "tlbcore.policy",
    "policies": "tlbcore.policy",
    "CheckError": "tlbcore._core",
    "ConfigError": "tlbcore._core",
    "PolicyError": "tlbcore._core",
    "SimError": "tlbcore._core",
    "SweepError": "tlbcore._core",
    "TlbError": "tlbcore._core",
    "TraceError": "tlbcore._core",
    "Explanation": "tlbcore._explain",
    "Replay": "tlbcore._replay",
    "Trace": "tlbcore.trace",
    "causes": "tlbcore.trace",
    "explain": "tlbcore._explain",
    "read_trace": "tlbcore.trace",
    "replay": "tlbcore._replay",
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
