"""Machine: the processor cores and the memory that this process may use.

Owns every read of /proc and /sys that asks about the machine. A container's limits count as much as
the machine's own size: they are those of the process's control group and of every group above it
(cgroup v1 and v2), and the smallest of all holds.
"""

import ctypes
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the kernel's files are; tests give folders of their own."""

    proc: Path = Path("/proc")
    system: Path = Path("/sys/devices/system")


ROOTS = Roots()


def cores(roots: Roots = ROOTS) -> int:
    """Return how many cores' worth of time this process may use, at least 1.

    A quota of one and a half cores is rounded up to 2.
    """
    allowed = len(allowed_cores()) or os.cpu_count() or 1
    return max(1, min([allowed, *_cpu_quotas(roots)]))


def has_cpu_quota(roots: Roots = ROOTS) -> bool:
    """Say whether the process may use less time than the cores it may run on have.

    Other processes then use the same cores, and only the kernel knows which are free.
    """
    allowed = len(allowed_cores())
    return bool(allowed) and any(quota < allowed for quota in _quotas(roots))


def allowed_cores() -> frozenset[int]:
    """Return the numbers of the cores that the calling thread may run on; empty if not known."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset()


def memory_bytes(roots: Roots = ROOTS) -> int:
    """Return the memory that this process may take in all: the machine's, or its container's."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(limit for _, limit in _memory_limits(roots))])


def available_bytes(roots: Roots = ROOTS) -> int:
    """Return the memory that programs may still take here; 0 where the system does not say."""
    found = _numbers(_read(roots.proc / "meminfo")).get("MemAvailable", 0) * 1024
    if not found:
        return 0
    room = [max(0, limit - _used(group)) for group, limit in _memory_limits(roots)]
    return max(1, min([found, *room]))


def resident_bytes(roots: Roots = ROOTS) -> int:
    """Return the memory that this process holds; 0 where the system does not say."""
    fields = _read(roots.proc / "self/statm").split()
    if len(fields) < 2 or not fields[1].isdigit():  # noqa: PLR2004 - size, resident
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def core_ranks(roots: Roots = ROOTS) -> dict[int, int]:
    """Return each core's place among the hardware threads of its physical core, from 0.

    Two hardware threads of one physical core share its arithmetic units: those of rank 0 compute at
    full speed side by side. Cores whose siblings are not known are left out.
    """
    ranks = {}
    for path in roots.system.glob("cpu/cpu[0-9]*/topology/thread_siblings_list"):
        core = int(path.parts[-3].removeprefix("cpu"))
        siblings = _core_list(_read(path))
        if core in siblings:
            ranks[core] = siblings.index(core)
    return ranks


def processor(roots: Roots = ROOTS) -> str:
    """Return the line of /proc/cpuinfo that names the processor; empty if there is none."""
    lines = _read(roots.proc / "cpuinfo").splitlines()
    return next((line for line in lines if line.startswith(("model name", "CPU part"))), "")


def boot_id(roots: Roots = ROOTS) -> str:
    """Return what tells this start of the machine from every other; empty where nothing does."""
    return _read(roots.proc / "sys/kernel/random/boot_id").strip()


NICE = 10
"""How much the calling thread gives way: to a tenth of a busy core's time."""


def give_way() -> None:
    """Let other threads go first from now on, where one thread can (Linux).

    Threads that the calling one starts inherit it, and nobody may take it back.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the thread that started it ends, where it can (Linux).

    With `parent`, the number of the process that started it, one that is dead already ends this
    process now.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def _cpu_quotas(roots: Roots) -> Iterator[int]:
    """Yield the quota of every group that has one, in cores, rounded up."""
    return (max(1, math.ceil(quota)) for quota in _quotas(roots))


def _quotas(roots: Roots) -> Iterator[float]:
    """Yield the quota of every group that has one, in cores."""
    for group in _groups(roots, "cpu"):
        # v2 has both numbers in one file, v1 one file for each.
        fields = _read(group / "cpu.max").split() or [
            _read(group / "cpu.cfs_quota_us").strip(),
            _read(group / "cpu.cfs_period_us").strip(),
        ]
        quota, period = (*fields, "", "")[:2]
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _memory_limits(roots: Roots) -> Iterator[tuple[Path, int]]:
    """Yield the groups that limit memory, each with its limit in bytes."""
    for group in _groups(roots, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            value = _read(group / name).strip()
            # "max" is no limit; v1 says so with a number that is larger than any machine.
            if value.isdigit():
                yield group, int(value)


def _used(group: Path) -> int:
    """Return the bytes that a group holds and the kernel cannot take back at once."""
    stat = _numbers(_read(group / "memory.stat"))
    cached = stat.get("total_inactive_file", stat.get("inactive_file", 0))
    for name in ("memory.current", "memory.usage_in_bytes"):
        value = _read(group / name).strip()
        if value.isdigit():
            return max(0, int(value) - cached)
    return 0


def _groups(roots: Roots, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of those above it, for v1 and v2."""
    paths = dict(_paths(_read(roots.proc / "self/cgroup")))
    for line in _read(roots.proc / "self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), (*after.split(), "", "", "")[:3]
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and controller in options.split(","):
            path = paths.get(controller)
        else:
            continue
        if path is None or len(fields) < 5:  # noqa: PLR2004 - root and mount point among them
            continue
        yield from _upwards(Path(_unescaped(fields[4])), path, root=_unescaped(fields[3]))


def _paths(text: str) -> Iterator[tuple[str, str]]:
    """Yield (controller, path) of /proc/self/cgroup; v2's one group has an empty controller."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield from ((controller, path) for controller in controllers.split(","))


def _upwards(mount: Path, path: str, *, root: str) -> Iterator[Path]:
    """Yield a group's folder and its parents up to the mount point, which shows `root`."""
    shown = root.rstrip("/")
    # A container without a cgroup namespace sees the whole path, and a mount of its own group.
    inside = path[len(shown) :] if path == root or path.startswith(f"{shown}/") else "/"
    parts = [part for part in inside.split("/") if part]
    if ".." in parts:
        parts = []  # a group outside the namespace: only the mount itself can be read
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _unescaped(text: str) -> str:
    """Return a path of mountinfo, in which blanks and the like stand as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _core_list(text: str) -> list[int]:
    """Return the numbers that a list like `0-3,8` means."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found += range(int(first), int(last or first) + 1)
    return found


def _numbers(text: str) -> dict[str, int]:
    """Return the lines of a file like `MemAvailable: 12 kB` or `inactive_file 12`."""
    pairs = (line.replace(":", " ").split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) > 1 and pair[1].isdigit()}


def _read(path: Path) -> str:
    """Return a file's text; empty if it is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
