"""Limit: whether an entry asks for longer sequences than its file was made for.

Owns that refusal: positions that a model never learned give vectors that mean nothing.
"""

from appliance.catalog.header import Header
from appliance.catalog.headers import header_of
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidModelFile


def limit_reason(spec: ModelSpec, header: Header) -> str | None:
    """Return why an entry's `max_input_tokens` cannot be kept, or None if it can."""
    context = header.get_int(f"{header.architecture}.context_length")
    asked = spec.entry.max_input_tokens
    if context is None or asked <= context:
        return None
    return (
        f"max_input_tokens is {asked}, and its file {spec.path.name} takes {context} tokens: "
        "lower it in models.toml"
    )


def limit_reason_of_file(spec: ModelSpec) -> str | None:
    """Return the same from the file as it is now; None too where it cannot be read."""
    try:
        return limit_reason(spec, header_of(spec.path))
    except InvalidModelFile:
        return None
