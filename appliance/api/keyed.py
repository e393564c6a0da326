"""Keyed: requests of a key that cost nothing: its files and its batches.

Owns their order of refusal (key, size of the body, shape of the body) and how a list is paged.
"""

from dataclasses import replace
from typing import TypeVar

from appliance.accounts.key import Key
from appliance.api.request import (
    AnyRequest,
    credential_of,
    discard_unread,
    read_body,
    refuse_large,
)
from appliance.api.services import Services
from appliance.core.errors import ApplianceError, InvalidRequest
from appliance.core.limits import Limits
from appliance.wire.json import decode

T = TypeVar("T")
ORDER_BYTES_MAX = 64 * 1024
"""Of a JSON body that is no call."""
NUMBER_CHARS_MAX = 9


async def require_key(request: AnyRequest, services: Services, limits: Limits) -> Key:
    """Return the key of a request; one that may not infer has no files and no batches.

    Raises:
        BodyTooLarge: the body was declared larger than `limits` allow, and not sent yet.
        ApplianceError: the key is refused.
    """
    await refuse_large(request, limits)
    try:
        return services.authenticator.require(request, credential_of(request), "infer")
    except ApplianceError:
        await discard_unread(request)
        raise


async def read_order(request: AnyRequest, services: Services, kind: type[T]) -> tuple[Key, T]:
    """Return the key and the JSON body of a request.

    Raises:
        ApplianceError: either is refused.
    """
    limits = replace(services.limits, text_bytes_max=1, body_bytes_max=ORDER_BYTES_MAX)
    key = await require_key(request, services, limits)
    return key, decode(await read_body(request, limits), kind)


def asked_limit(request: AnyRequest, *, usual: int, most: int) -> int:
    """Return `?limit=`.

    Raises:
        InvalidRequest: it is no number from 1 to `most`.
    """
    asked = request.query_params.get("limit", str(usual))
    is_number = asked.isascii() and asked.isdigit() and len(asked) <= NUMBER_CHARS_MAX
    if not is_number or not 1 <= int(asked) <= most:
        raise InvalidRequest(f"limit is a number from 1 to {most}", param="limit")
    return int(asked)
