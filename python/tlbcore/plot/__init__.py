r"""Drawing: each function puts one result into a Matplotlib `Axes` and returns it; none makes a figure or a file.

`result.plot()` makes the figure too, and with `file=` the file; `figure` and `save` are what it uses. Needs the extra
`plot`. Axes say in words what is drawn, with its unit, and whether it was measured or is predicted. Intervals are drawn
where there are some, a policy that does nothing here is hollow and marked `inert`, and what is missing is not drawn.
Colours are those of Okabe and Ito, and series differ by marker and dash too, so that they can be told apart in grey.

>>> import matplotlib
>>> matplotlib.use("Agg")
>>> import matplotlib.pyplot as plt
>>> import tlbcore as tc
>>> load = tc.scenarios.syscall_heavy(duration_s=0.01)
>>> found = tc.compare(load, machine="broadwell-ep", policies=["ipi", "coalesce-v7"], replications=2)
>>> _, axes = plt.subplots()
>>> tc.plot.comparison(axes, found, "syscall_mean_ns").get_ylabel()
'Mean system call, refills\nincluded\n(ns, predicted)'
>>> found.plot("entry_mean_ns", columns=1).figure.get_size_inches().tolist()
[3.35, 2.3]
"""

from tlbcore.plot._canvas import PALETTE, SIZES, figure, save, style
from tlbcore.plot._dispatch import draw
from tlbcore.plot.checked import growth, needs, repairs, verdict, verdict_table
from tlbcore.plot.measured import calibration, explanation, replay, shootdowns, validation
from tlbcore.plot.simulated import break_even, comparison, heat_map, latency, sweep, timeline
from tlbcore.plot.translated import access, miss_curve, translation

__all__ = [
    "PALETTE",
    "SIZES",
    "access",
    "break_even",
    "calibration",
    "comparison",
    "draw",
    "explanation",
    "figure",
    "growth",
    "heat_map",
    "latency",
    "miss_curve",
    "needs",
    "repairs",
    "replay",
    "save",
    "shootdowns",
    "style",
    "sweep",
    "timeline",
    "translation",
    "validation",
    "verdict",
    "verdict_table",
]
