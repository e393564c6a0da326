"""What a process may use of its machine: made-up kernel files of every kind, and one real group."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from appliance import machine
from appliance.machine import Roots

MB = 1_000_000
UNLIMITED_V1 = 9_223_372_036_854_771_712
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


class Tree:
    """A made-up /proc/self with the cgroup mounts that it names."""

    def __init__(self, folder):
        self.roots = Roots(folder / "proc", folder / "system")
        (self.roots.proc / "self").mkdir(parents=True)
        self.folder = folder
        self.mounts = []
        self.write(
            self.roots.proc / "meminfo", "MemTotal: 32000000 kB\nMemAvailable: 20000000 kB\n"
        )

    @staticmethod
    def write(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def belongs(self, *lines):
        self.write(self.roots.proc / "self/cgroup", "\n".join(lines) + "\n")

    def mount(self, name, kind, options="rw", root="/"):
        point = self.folder / name
        point.mkdir(parents=True, exist_ok=True)
        shown = str(point).replace(" ", r"\040")
        self.mounts.append(
            f"30 23 0:26 {root} {shown} rw,nosuid shared:4 - {kind} cgroup {options}"
        )
        self.write(self.roots.proc / "self/mountinfo", "\n".join(self.mounts) + "\n")
        return point


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.fixture
def v2(tree):
    tree.belongs("0::/system.slice/appliance.service")
    point = tree.mount("unified", "cgroup2")
    return point / "system.slice/appliance.service"


def test_without_any_control_group_the_machine_counts(tree, many_cores):
    assert machine.cores(tree.roots) == 64
    assert not machine.has_cpu_quota(tree.roots)
    assert machine.memory_bytes(tree.roots) == PHYSICAL
    assert machine.available_bytes(tree.roots) == 20_000_000 * 1024


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000", 64),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("12800000 100000", 64),
        ("nonsense", 64),
        ("200000 0", 64),
        ("", 64),
    ],
)
def test_a_quota_of_v2_is_rounded_up_to_whole_cores(tree, v2, many_cores, text, cores):
    tree.write(v2 / "cpu.max", text)
    assert machine.cores(tree.roots) == cores
    assert machine.has_cpu_quota(tree.roots) == (cores < 64)


def test_a_quota_between_the_last_core_and_all_of_them_is_one(tree, v2, many_cores):
    tree.write(v2 / "cpu.max", "6350000 100000")
    assert machine.cores(tree.roots) == 64
    assert machine.has_cpu_quota(tree.roots)


@pytest.mark.parametrize(("quota", "cores"), [("-1", 64), ("250000", 3), ("1000", 1)])
def test_a_quota_of_v1_is_two_files(tree, many_cores, quota, cores):
    tree.belongs("3:cpu,cpuacct:/docker/abc", "4:memory:/docker/abc")
    group = tree.mount("cpu", "cgroup", "rw,cpu,cpuacct") / "docker/abc"
    tree.write(group / "cpu.cfs_quota_us", f"{quota}\n")
    tree.write(group / "cpu.cfs_period_us", "100000\n")
    assert machine.cores(tree.roots) == cores


def test_the_cores_that_the_process_may_run_on_count_too(tree, v2, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    tree.write(v2 / "cpu.max", "800000 100000")
    assert machine.cores(tree.roots) == 2


@pytest.mark.parametrize("level", ["", "system.slice", "system.slice/appliance.service"])
def test_the_smallest_limit_of_all_ancestors_holds(tree, v2, many_cores, level):
    point = v2.parents[1]
    for each in ("system.slice", "system.slice/appliance.service"):
        tree.write(point / each / "memory.max", f"{900 * MB}\n")
        tree.write(point / each / "cpu.max", "800000 100000\n")
    tree.write(point / level / "memory.max", f"{400 * MB}\n")
    tree.write(point / level / "cpu.max", "300000 100000\n")
    assert machine.memory_bytes(tree.roots) == 400 * MB
    assert machine.cores(tree.roots) == 3


def test_memory_high_counts_and_swap_does_not(tree, v2):
    tree.write(v2 / "memory.max", "max\n")
    tree.write(v2 / "memory.swap.max", "100\n")
    assert machine.memory_bytes(tree.roots) == PHYSICAL
    tree.write(v2 / "memory.high", f"{300 * MB}\n")
    assert machine.memory_bytes(tree.roots) == 300 * MB


def test_v1_says_unlimited_with_a_number(tree):
    tree.belongs("4:memory:/docker/abc")
    group = tree.mount("memory", "cgroup", "rw,memory") / "docker/abc"
    tree.write(group / "memory.limit_in_bytes", f"{UNLIMITED_V1}\n")
    assert machine.memory_bytes(tree.roots) == PHYSICAL
    tree.write(group.parent / "memory.limit_in_bytes", f"{400 * MB}\n")
    assert machine.memory_bytes(tree.roots) == 400 * MB


def test_a_hybrid_has_its_memory_in_v1_and_its_processes_in_v2(tree, many_cores):
    tree.belongs("4:memory:/a/b", "1:cpu:/", "0::/")
    tree.mount("unified", "cgroup2")
    cpu = tree.mount("cpu", "cgroup", "rw,cpu")
    memory = tree.mount("memory", "cgroup", "rw,memory")
    tree.write(memory / "a/b/memory.limit_in_bytes", f"{400 * MB}")
    tree.write(cpu / "cpu.cfs_quota_us", "100000")
    tree.write(cpu / "cpu.cfs_period_us", "100000")
    assert machine.memory_bytes(tree.roots) == 400 * MB
    assert machine.cores(tree.roots) == 1


@pytest.mark.parametrize("path", ["/docker/abc/inner", "/docker/abc"])
def test_a_container_without_a_namespace_sees_its_own_group_mounted(tree, path):
    tree.belongs(f"4:memory:{path}")
    point = tree.mount("memory of mine", "cgroup", "rw,memory", root="/docker/abc")
    tree.write(point / "memory.limit_in_bytes", f"{400 * MB}")
    assert machine.memory_bytes(tree.roots) == 400 * MB


@pytest.mark.parametrize("path", ["/../../elsewhere", "/not/below/the/root"])
def test_a_group_outside_of_what_is_mounted_leaves_the_mount(tree, path):
    tree.belongs(f"0::{path}")
    root = "/" if ".." in path else "/docker/abc"
    point = tree.mount("unified", "cgroup2", root=root)
    tree.write(point / "memory.max", f"{400 * MB}")
    assert machine.memory_bytes(tree.roots) == 400 * MB


def test_what_the_kernel_can_take_back_is_available(tree, v2):
    tree.write(v2 / "memory.max", f"{400 * MB}")
    tree.write(v2 / "memory.current", f"{300 * MB}")
    tree.write(v2 / "memory.stat", f"anon {200 * MB}\ninactive_file {90 * MB}\n")
    assert machine.available_bytes(tree.roots) == 190 * MB
    tree.write(v2 / "memory.current", f"{900 * MB}")
    assert machine.available_bytes(tree.roots) == 1  # full is not the same as not known


def test_v1_counts_what_its_children_can_give_back(tree):
    tree.belongs("4:memory:/a")
    group = tree.mount("memory", "cgroup", "rw,memory") / "a"
    tree.write(group / "memory.limit_in_bytes", f"{400 * MB}")
    tree.write(group / "memory.usage_in_bytes", f"{300 * MB}")
    tree.write(group / "memory.stat", f"inactive_file 5\ntotal_inactive_file {50 * MB}\n")
    assert machine.available_bytes(tree.roots) == 150 * MB


def test_files_that_cannot_be_read_limit_nothing(tree, v2, many_cores):
    (v2 / "memory.max").mkdir(parents=True)
    (v2 / "cpu.max").mkdir()
    tree.write(v2 / "memory.high", "\x00\xff?\n")
    assert machine.memory_bytes(tree.roots) == PHYSICAL
    assert machine.cores(tree.roots) == 64
    tree.write(tree.roots.proc / "self/mountinfo", "no mount at all\n - cgroup2\n")
    tree.write(tree.roots.proc / "self/cgroup", "\n:\n0\n")
    assert machine.memory_bytes(tree.roots) == PHYSICAL


def test_where_the_system_does_not_say_there_is_nothing_known(tmp_path):
    nowhere = Roots(tmp_path / "none", tmp_path / "none")
    assert machine.available_bytes(nowhere) == 0
    assert machine.resident_bytes(nowhere) == 0
    assert machine.core_ranks(nowhere) == {}
    assert machine.cores(nowhere) >= 1


def test_siblings_of_one_physical_core_have_ranks(tree):
    for core, siblings in {0: "0,4", 4: "0,4", 1: "1-2", 2: "1-2", 3: "3", 5: ""}.items():
        path = tree.roots.system / f"cpu/cpu{core}/topology/thread_siblings_list"
        tree.write(path, siblings + "\n")
    assert machine.core_ranks(tree.roots) == {0: 0, 4: 1, 1: 0, 2: 1, 3: 0}


def test_the_processor_is_the_first_one_that_is_named(tree):
    tree.write(tree.roots.proc / "cpuinfo", "processor\t: 0\nmodel name\t: A\nmodel name\t: B\n")
    assert machine.processor(tree.roots) == "model name\t: A"
    tree.write(tree.roots.proc / "cpuinfo", "nothing\n")
    assert machine.processor(tree.roots) == ""


def test_this_machine_has_memory_and_this_process_some_of_it():
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
    assert 0 < machine.resident_bytes() < machine.memory_bytes()
    assert 0 < machine.available_bytes() <= machine.memory_bytes()


# -- a real group -------------------------------------------------------------------------------

ASK = "from appliance import machine as m; print(m.memory_bytes(), m.available_bytes(), m.cores())"


def made_group(controller):
    """Return the folder of a new group of v1, or skip."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        if kind == "cgroup" and controller in options.split(","):
            group = Path(before.split()[4], f"appliance-test-{os.getpid()}")
            try:
                group.mkdir()
            except OSError as error:
                pytest.skip(f"no control group can be made: {error}")
            return group
    pytest.skip("this machine has no control groups of version 1")


def asked_inside(group):
    inside = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0'); {ASK}"
    ran = subprocess.run(
        [sys.executable, "-c", inside], check=False, capture_output=True, text=True, timeout=60
    )
    if "PermissionError" in ran.stderr:
        pytest.skip("no process may enter a control group")
    assert ran.returncode == 0, ran.stderr
    return map(int, ran.stdout.split())


@pytest.fixture
def group(request):
    made = made_group(request.param)
    yield made
    with suppress(OSError):
        made.rmdir()


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="control groups are Linux's")
@pytest.mark.parametrize("group", ["memory"], indirect=True)
def test_a_process_in_a_group_of_400_mb_knows_it(group):
    size = 400 << 20
    (group / "memory.limit_in_bytes").write_text(str(size))
    memory, available, _ = asked_inside(group)
    assert memory == size
    assert available < size


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="control groups are Linux's")
@pytest.mark.parametrize("group", ["cpu"], indirect=True)
def test_a_process_with_a_quota_of_half_a_core_knows_it(group):
    if not (group / "cpu.cfs_quota_us").exists():
        pytest.skip("this kernel has no quotas")
    (group / "cpu.cfs_quota_us").write_text("50000")
    _, _, cores = asked_inside(group)
    assert cores == 1
