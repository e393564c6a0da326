"""Trial report: what the process that tries a model file tells the one that began it.

Owns the messages on its standard input and output, each one line of JSON.
"""

import msgspec

from appliance.catalog.spec import ModelEntry
from appliance.engine.trial_record import Length


class Request(msgspec.Struct):
    """What to try; the first line of standard input, which stays open as long as anybody waits."""

    entry: ModelEntry
    path: str
    memory_bytes: int
    """Bytes of address space that the process may take on a machine without a graphics card."""
    long: bool = False
    """True: sequences up to the model's longest, too."""


class TrialReport(msgspec.Struct):
    """What short sequences showed."""

    reason: str | None = None
    """Why the file must not be used; None: it may be."""
    notes: list[str] = []
    """What an operator should know of a file that may be used."""


class Message(msgspec.Struct, omit_defaults=True):
    """One line; one of its fields is set."""

    step: str | None = None
    """What begins now."""
    report: TrialReport | None = None
    trying_tokens: int | None = None
    """The length of the long sequence that is computed next."""
    length: Length | None = None
    """One that was computed."""
    unfinished: str | None = None
    """What kept the process from its end, which is no fault of the file."""
    ended: bool = False
    """Nothing more comes."""
