"""What `tlbcore record --process` costs the process that is recorded.

    python -m benches.record_overhead [ROUNDS]

Needs root, tracefs, a C compiler and two CPUs. A thread maps, touches and unmaps a page, again and again; with and
without a thread of the same process that computes on another CPU, so that each unmap interrupts it, or nobody. Each
round measures 20,000 unmaps of both kinds, plain and while they are recorded. Shown are the first hundredth and the
median of each round's unmaps, least over rounds: what others do on the machine only adds.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOOP = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
static volatile int stop;
static volatile unsigned long turns;
static void pin(int cpu) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(cpu, &s); sched_setaffinity(0, sizeof s, &s); }
static void *spin(void *a) { pin(1); while (!stop) turns++; return a; }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
static int order(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }
int main(int c, char **v) {
  int n = atoi(v[1]), peer = atoi(v[2]);
  if (n == 0) return pause();
  double *took = malloc(n * sizeof *took);
  pthread_t p;
  pin(0);
  if (peer) pthread_create(&p, 0, spin, 0);
  for (int i = 0; i < n; i++) {
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *page = 1;
    if (peer) { unsigned long at = turns; while (turns == at); }  /* it runs now, so that it must be interrupted */
    double begin = now();
    munmap(page, 4096);
    took[i] = now() - begin;
  }
  stop = 1;
  qsort(took, n, sizeof *took, order);
  printf("%f %f\n", took[n / 100], took[n / 2]);
  return 0;
}
"""
UNMAPS = 20_000


def main(rounds: int) -> None:
    """Measure and print."""
    least: dict[tuple[str, int], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        loop = Path(folder) / "unmaploop"
        subprocess.run(
            ["cc", "-O2", "-pthread", "-x", "c", "-", "-o", str(loop)], input=LOOP, text=True, check=True
        )

        def take(how: str) -> None:
            for victims in (1, 0):
                done = subprocess.run(
                    [str(loop), str(UNMAPS), str(victims)], capture_output=True, text=True, check=True
                )
                found = tuple(float(word) for word in done.stdout.split())
                before = least.get((how, victims), found)
                least[how, victims] = min(before[0], found[0]), min(before[1], found[1])

        for number in range(rounds):
            take("plain")
            waits = subprocess.Popen([str(loop), "0", "0"])
            out = Path(folder) / f"{number}.txt"
            recorder = subprocess.Popen(
                [sys.executable, "-m", "tlbcore", "record", "--process", loop.name, "--out", str(out)],
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                time.sleep(4)  # until its events are on
                take("recorded")
            finally:
                recorder.send_signal(signal.SIGINT)
                text = recorder.communicate()[0]
                waits.kill()
                waits.wait()
            if recorder.returncode:
                raise SystemExit(text)
        print(text)
    for victims in (0, 1):
        for at, what in enumerate(("first hundredth", "median")):
            plain, recorded = (least[how, victims][at] / 1e3 for how in ("plain", "recorded"))
            print(
                f"{victims} interrupted, {what}: {plain:.2f} us plain, {recorded:.2f} us recorded, "
                f"{recorded - plain:+.2f} us"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
