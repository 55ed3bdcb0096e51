"""Boot a real kernel in qemu, run tlbcore in it, and bring back the files it wrote.

    python tests/guest.py KERNEL_DIRECTORY OUT_DIRECTORY

KERNEL_DIRECTORY is an unpacked Debian kernel package (`apt-get download linux-image-6.12...-amd64` and `dpkg-deb -x`).
The guest has no system of its own: its root is a small initramfs with busybox, and in it, read-only over 9p, this
machine's, so that the same Python and the same tlbcore run there. Everything is software emulation: counts and orders
are real, times are not.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import sys
from pathlib import Path

# 9p over virtio, in the order in which they depend on each other; fscache is part of netfs in newer kernels.
MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "netfs", "fscache",
    "9pnet", "9pnet_virtio", "9p",
)  # fmt: skip
TOOLS = ("qemu-system-x86_64", "busybox", "cpio")

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1
for m in {modules}; do [ -f /lib/modules/$m.ko ] && insmod /lib/modules/$m.ko; done
share() {{ mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,$3 $1 $2; }}
share host /host ro,cache=loose || poweroff -f
share share /host/mnt rw || poweroff -f
mount -t proc proc /host/proc; mount -t sysfs sys /host/sys; mount -t devtmpfs dev /host/dev
mount -t tmpfs tmp /host/tmp; mount -t tracefs tracefs /host/sys/kernel/tracing
mkdir -p /host/dev/shm
groups=/host/sys/fs/cgroup
mount -t cgroup2 cgroup $groups && mkdir $groups/storm && echo $$ > $groups/storm/cgroup.procs
echo 0 > /host/proc/sys/net/core/bpf_jit_enable
taskset 4 sh -c 'while :; do :; done' &  # one isolated CPU in user mode, the other idle
echo "guest: $(uname -r) is up after $(cut -d' ' -f1 /proc/uptime) s"
tracing=/host/sys/kernel/tracing
state() {{ cat $tracing/kprobe_events; ls $tracing/instances; cat $tracing/tracing_on $tracing/set_event; }}
state > /host/mnt/before
run() {{
  number=$1; shift
  taskset 3 chroot /host /usr/bin/env HOME=/tmp PATH=/usr/bin:/bin PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 \\
    OPENBLAS_NUM_THREADS=1 {python} -m tlbcore "$@" > /host/mnt/output.$number 2>&1
  echo $? > /host/mnt/status.$number
}}
{commands}
state > /host/mnt/after
sync; echo "guest: done"; poweroff -f
"""

# Attaches socket filters, which without the JIT flush every TLB about twice each (FACTS 8), and forks.
WORKLOAD = """
import ctypes, os, socket, struct, sys
program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFF))
for _ in range(int(sys.argv[1])):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(program)))
    s.close()
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
"""


def image(kernel: Path) -> Path | None:
    """Return the kernel's image: in boot, or beside its modules as in Debian's 7.3."""
    places = ("boot/vmlinuz-*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz")
    return next((found for place in places for found in sorted(kernel.glob(place))), None)


def missing(kernel: Path) -> str | None:
    """Return what a boot would lack."""
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if image(kernel) is None:
        return f"{kernel}: neither boot/vmlinuz-* nor lib/modules/*/vmlinuz in it"
    return None


def initramfs(kernel: Path, scratch: Path, init: str) -> Path:
    """Pack busybox, the modules and the script."""
    root = scratch / "root"
    for name in ("bin", "proc", "sys", "dev", "host", "lib/modules"):
        (root / name).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), root / "bin/busybox")
    for name in MODULES:
        for found in kernel.rglob(f"{name}.ko*"):
            data = found.read_bytes()
            data = lzma.decompress(data) if found.suffix == ".xz" else data
            (root / f"lib/modules/{name}.ko").write_bytes(data)
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in [root, *sorted(root.rglob("*"))])
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        cwd=root,
        input=names.encode(),
        capture_output=True,
        check=True,
    )
    target = scratch / "initramfs.gz"
    target.write_bytes(gzip.compress(packed.stdout, 1))
    return target


def boot(kernel: Path, share: Path, scratch: Path, commands: list[str], *, seconds: float = 900) -> str:
    """Run `tlbcore` with each of these arguments in the guest (4 CPUs, 2-3 isolated) and return its console's log.

    `/mnt` in the guest is `share`; files `output.N`, `status.N`, `before` and `after` appear there.
    """
    (share / "workload.py").write_text(WORKLOAD)
    init = INIT.format(
        modules=" ".join(MODULES),
        python=sys.executable,
        path=":".join(path for path in sys.path if path and Path(path).is_dir()),
        commands="\n".join(f"run {number} {command}" for number, command in enumerate(commands)),
    )
    log = scratch / "console.log"
    subprocess.run(
        [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "Haswell", "-smp", "4",
            "-m", "3G", "-nodefaults", "-no-reboot", "-display", "none", "-serial", f"file:{log}",
            "-kernel", str(image(kernel)), "-initrd", str(initramfs(kernel, scratch, init)),
            "-fsdev", "local,id=h,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=h,mount_tag=host",
            "-fsdev", f"local,id=s,path={share},security_model=none",
            "-device", "virtio-9p-pci,fsdev=s,mount_tag=share",
            "-append", "console=ttyS0 panic=-1 nohz_full=2-3 isolcpus=2-3 rcu_nocbs=2-3 irqaffinity=0,1 pti=on"
            " nowatchdog tsc=reliable clocksource=tsc",
        ],
        timeout=seconds,
        check=True,
    )  # fmt: skip
    return log.read_text(errors="replace")


def record(kernel: Path, share: Path, scratch: Path, filters: int = 40) -> str:
    """Record while the workload runs, and once more as a flight recorder with a noise threshold.

    Emulated on several threads, qemu now and then lets a CPU see an int3 of text patching after it was taken back
    (an oops in `__schedule`): such a guest is booted again, twice at most.
    """
    work = f"-- {sys.executable} /mnt/workload.py"
    commands = [
        f"record --out /mnt/recording.txt {work} {filters}",
        f"record --out /mnt/flight.txt --noise 50us --snapshots 2 --duration 120s {work} 400",
    ]
    for attempt in range(3):
        place = scratch / str(attempt)
        place.mkdir()
        for left in share.iterdir():
            left.unlink()
        log = boot(kernel, share, place, commands)
        if "Oops: int3" not in log:
            break
    return log


if __name__ == "__main__":
    import tempfile

    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        print(record(Path(sys.argv[1]), out.resolve(), Path(scratch))[-3000:])
