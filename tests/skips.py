"""Skips: in CI, a test that is skipped for a reason that nobody expected fails the run.

A skip that comes by accident (a fixture that no longer finds its file, say) looks like a pass.
"""

import os

import pytest

EXPECTED = {
    "only root mounts": "a file is made read-only for everybody by a mount",
    "no file can be mounted here": "a container without the right to mount",
    "only root mounts a disk": "a small disk that fills is a tmpfs",
    "no disk can be mounted here": "a container without the right to mount",
    "LD_PRELOAD and /proc are Linux's": "a failing fsync is put in front of libc's",
    "there is no C compiler": "the failing fsync is compiled; the engine needs a compiler, tests do not",
    "there is no pgrep here": "processes are found by their command lines",
    "there is no tmux here": ".ci/run installs it where that is possible",
    "there is no systemd-analyze here": "units are held against systemd's own reading of them",
    "there is no ruby here": "the formula is Homebrew's, and that is macOS's",
    "there is no caddy here": "the proxy of packaging/image/compose.yml",
    "there is no hadolint here": "a linter of the image's recipe",
    "there is no sh here": "a user's shell starts the command",
    "the kernel names no holders here": "the holder of a lock is read in /proc/locks",
    "control groups are Linux's": "limits of a container",
    "no control group can be made": "a container without the right to",
    "no process may enter a control group": "a container without the right to",
    "this machine has no control groups of version 1": "most have version 2 alone",
    "this kernel has no quotas": "a kernel without CONFIG_CFS_BANDWIDTH",
    "other processes use the cores": "what the kernel does with threads is judged on free cores",
    "one core has no other": "threads are placed on cores of their own",
    "threads are counted in /proc": "Linux",
    "memory is read in /proc": "Linux",
    "limits are read in /proc": "Linux",
    "only root gives files away": "a file of another user is made by chown",
    "pthread_getattr_np is glibc's": "the size of a thread's stack",
    "an engine with its own kernels": "an engine that was compiled elsewhere, or a processor without AVX2",
    "there is no browser here": "a page of somebody else is read in Chromium",
    "this is no checkout": "what is tracked is asked of git",
}
"""Reasons (or their beginnings, up to a colon), and what each is about."""


def unexpected(reasons: list[str]) -> list[str]:
    """Return the reasons that are not expected."""
    return [each for each in reasons if each.partition(":")[0] not in EXPECTED]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run in CI."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    skipped = [report.longrepr for report in reporter.stats.get("skipped", ())]
    reasons = [longrepr[2].removeprefix("Skipped: ") for longrepr in skipped]
    found = unexpected(reasons)
    if found:
        reporter.write_line("")
        for reason in found:
            reporter.write_line(f"ERROR skipped, and tests/skips.py does not expect it: {reason}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
