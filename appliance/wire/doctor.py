"""Doctor: what a look at the appliance's health finds."""

from typing import Literal

import msgspec

Status = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    status: Status
    said: str
    fix: str = ""
    """What to do; empty where nothing is to be done."""


class Report(msgspec.Struct, frozen=True):
    """Everything that was looked at."""

    healthy: bool
    """Nothing failed; warnings are allowed."""
    data: list[Finding]
