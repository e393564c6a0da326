"""Report: what a run of the bench found, on which machine, with which build.

Owns how two of them are compared. Figures of another machine or engine say nothing about a change:
they are refused rather than compared.
"""

import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from appliance import machine
from appliance.bench.comparison import Result
from appliance.core.errors import InvalidRequest
from appliance.engine.llama import library

GIT_S = 10


class Setting(msgspec.Struct, frozen=True):
    """Where the bench ran; a server at another place may be another machine's."""

    processor: str
    cores: int
    features: str
    """What llama.cpp was built for, as it says itself."""
    kernels: str
    engine: str
    """The version of llama-cpp-python."""
    version: str
    commit: str
    """Of the checkout that ran, with `-dirty` if files differ from it; empty: it is none."""


class Report(msgspec.Struct, frozen=True):
    """One run of the bench."""

    setting: Setting
    results: list[Result]


def setting() -> Setting:
    """Return what this machine and this build are."""
    facts = library.facts()
    return Setting(
        processor=machine.processor().partition(":")[2].strip(),
        cores=machine.cores(),
        features=" ".join(facts["features"].split()),
        kernels=facts["kernels"],
        engine=facts["llama-cpp-python"],
        version=version("gigarouter"),
        commit=_commit(Path(__file__).parents[2]),
    )


def _commit(root: Path) -> str:
    if not (root / ".git").exists():
        return ""
    try:
        said = subprocess.run(  # noqa: S603 - our own words
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"],  # noqa: S607 - whichever the user has
            capture_output=True,
            text=True,
            check=False,
            timeout=GIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip()


def read(path: Path) -> Report:
    """Return an earlier report.

    Raises:
        InvalidRequest: the file is none; `param` is `check`.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", param="check") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(
            f"{path} is not what `gigarouter bench --json` prints: {error}", param="check"
        ) from None


def slower(before: Report, now: Report, *, tolerance: float) -> list[str]:
    """Return the workloads that became slower by more than a share, one line each.

    Where both were measured beside a peer, the ratios to it are compared: the speed of a machine
    changes from hour to hour, and the peer's with it.

    Raises:
        InvalidRequest: they are of two machines or engines, or have no workload in common; `param`
            is `check`.
    """
    for name in ("processor", "cores", "features", "kernels", "engine"):
        was, is_now = getattr(before.setting, name), getattr(now.setting, name)
        if was != is_now:
            raise InvalidRequest(
                f"the earlier run's {name} is {was!r}, this one's {is_now!r}", param="check"
            )
    known = {result.workload: result for result in before.results}
    pairs = [(known[each.workload], each) for each in now.results if each.workload in known]
    if not pairs:
        raise InvalidRequest("no workload is in both runs", param="check")
    found = []
    for was, result in pairs:
        (old, unit), (new, _) = _rate(was, result), _rate(result, was)
        if new < old * (1 - tolerance):
            found.append(f"{was.workload}: {new:.2f} {unit}, {old:.2f} before ({new / old:.2f})")
    return found


def _rate(result: Result, other: Result) -> tuple[float, str]:
    if result.ratio is not None and other.ratio is not None:
        return result.ratio, "of the peer's"
    return result.ours.requests_per_s, "req/s"


def of(results: Sequence[Result]) -> Report:
    """Return the report of these results, on this machine."""
    return Report(setting(), list(results))
