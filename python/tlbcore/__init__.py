"""Who interrupts isolated CPUs, is a TLB-flush deferral safe, and what does it cost?

Everything public is imported on first use, so `tlbcore --help` loads neither NumPy nor the compiled core.
"""

from __future__ import annotations

from importlib import import_module

# name -> module that defines it; one line per public name
_EXPORTS: dict[str, str] = {
    "__version__": "tlbcore._core",
    "TlbcoreError": "tlbcore._core",
    "EVENT": "tlbcore.tlb",
    "FLAGS": "tlbcore.tlb",
    "Machine": "tlbcore._machines",
    "OPS": "tlbcore.tlb",
    "Tlb": "tlbcore.tlb",
    "TlbResult": "tlbcore.tlb",
    "machine": "tlbcore._machines",
    "machines": "tlbcore._machines",
    "Host": "tlbcore.inspect",
    "inspect_host": "tlbcore.inspect",
    "Counterexample": "tlbcore.checker",
    "Verdict": "tlbcore.checker",
    "check": "tlbcore.checker",
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

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'tlbcore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
