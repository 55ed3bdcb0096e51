"""Recordings of real kernels: read one, explain who interrupted whom in it, replay policies over it."""

from tlbcore.trace.recording import Cause, PartialTraceError, Trace, causes, parse_cpus, read_trace

__all__ = ["Cause", "PartialTraceError", "Trace", "causes", "parse_cpus", "read_trace"]
