"""A TLB study from an address trace: `python examples/tlb_study.py TRACE PICTURE.png`.

TRACE is what ChampSim, DynamoRIO, Valgrind's lackey, pinatrace or gem5 wrote, or CSV, NumPy or Parquet.
"""

from __future__ import annotations

import sys

import tlbcore as tc

MACHINES = ("peers-64x4-1536x12", "skylake-sp", "zen4-epyc")


def main(path: str, picture: str) -> None:
    """Print walks per machine and page size; draw the misses of every LRU TLB."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data = tc.addresses(path, kinds=["load", "store"])
    for machine in MACHINES:
        found = tc.translate(data, machine=machine)
        accesses, walks = int(found.table["accesses"].sum()), int(found.table["walks"].sum())
        print(f"{machine}: {walks} walks in {accesses} accesses")
    large = tc.translate(data, machine="skylake-sp", page_size=1 << 21)
    print(f"skylake-sp, 2 MiB pages, walks: {int(large.table['walks'].sum())}")
    curve = tc.miss_curve(data, sets=[16, 32, 64], ways=12)
    figure, axes = pyplot.subplots()
    tc.plot.miss_curve(axes, curve)
    figure.savefig(picture)
    enough = curve["entries"][curve["misses"] == curve["misses"].min()].min()
    print(f"no LRU TLB of these misses less than {curve['misses'].min()} times; {enough} entries do")


if __name__ == "__main__":
    main(*sys.argv[1:])
