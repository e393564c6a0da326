"""Inputs: what is to be embedded, as texts or as token ids."""

import msgspec

from appliance.core.limits import Limits
from appliance.wire.texts import holds_token_ids, texts_of
from appliance.wire.tokens import token_lists


class Inputs(msgspec.Struct, frozen=True):
    """Texts, or ids in the place of texts."""

    texts: list[str]
    token_ids: list[list[int]] | None = None
    is_single: bool = False
    """True: one list of ids was sent by itself."""


def inputs_of(raw: msgspec.Raw, limits: Limits, *, param: str) -> Inputs:
    """Return what was sent.

    Raises:
        InvalidRequest: it is wrong; `param` names the field.
    """
    if not holds_token_ids(raw):
        return Inputs(texts_of(raw, limits, param=param))
    token_ids, is_single = token_lists(raw, limits, param=param)
    return Inputs([], token_ids, is_single)
