"""Additions: what the operator's API says of models that are being added."""

import msgspec


class AdditionView(msgspec.Struct, frozen=True):
    """One model that is being added."""

    id: str
    model: str
    """The id that it will have."""
    source: str
    """A path of the server's machine, or a repository of the hub."""
    stage: str
    """`look`, `copy`, `convert`, `hash`, `try` or `swap`; empty: it has not begun."""
    done: int
    """Of `total`, in this stage."""
    total: int
    """Bytes; 0: the stage cannot be measured."""


class AdditionList(msgspec.Struct, frozen=True):
    """Every model that is being added now, oldest first."""

    data: list[AdditionView]
