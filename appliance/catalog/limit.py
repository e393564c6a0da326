"""Limit: whether an entry asks for longer sequences than its file was made for.

Owns that refusal: positions that a model never learned give vectors that mean nothing.
"""

from functools import lru_cache
from pathlib import Path

from appliance.catalog.header import Header
from appliance.catalog.header_parser import read_header
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidModelFile


def limit_reason(spec: ModelSpec, header: Header) -> str | None:
    """Return why an entry's `max_input_tokens` cannot be kept, or None if it can."""
    context = header.get_int(f"{header.architecture}.context_length")
    return _reason(spec, context)


def limit_reason_of_file(spec: ModelSpec) -> str | None:
    """Return the same from the file as it is now; None too where it cannot be read."""
    try:
        found = spec.path.stat()
        context = _context(spec.path, found.st_size, found.st_mtime_ns)
    except (OSError, InvalidModelFile):
        return None
    return _reason(spec, context)


def _reason(spec: ModelSpec, context: int | None) -> str | None:
    asked = spec.entry.max_input_tokens
    if context is None or asked <= context:
        return None
    return (
        f"max_input_tokens is {asked}, and its file {spec.path.name} takes {context} tokens: "
        "lower it in models.toml"
    )


@lru_cache(maxsize=1024)
def _context(path: Path, _size: int, _changed_ns: int) -> int | None:
    header = read_header(path)
    return header.get_int(f"{header.architecture}.context_length")
