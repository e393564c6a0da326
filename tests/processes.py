"""A server's processes, as the kernel counts them (Linux)."""

from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the processes that a server computes models in."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"appliance.engine.child" in command:
            found.append(int(folder.name))
    return found


def resident(pid: int) -> int:
    """Return the bytes that a server and the processes of its models take; shared pages once."""
    return sum(_share(each) for each in (pid, *children(pid)))


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
