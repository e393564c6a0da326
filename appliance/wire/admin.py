"""Admin: what the operator's API and the command line's `--json` say.

Owns the shapes of keys and models as an operator sees them. Money is decimal credits, exact.
Deliberately holds no behaviour.
"""

from decimal import Decimal
from typing import Any

import msgspec

from appliance.core.units import credits_of


class KeyView(msgspec.Struct, frozen=True):
    """A key; never its plaintext."""

    id: str
    name: str
    hint: str
    credit: Decimal | None
    """What is available now; None: unlimited."""
    spent_today: Decimal
    daily_budget: Decimal | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    models: tuple[str, ...] | None
    created: str
    expires: str | None
    revoked: str | None


class MintedKey(msgspec.Struct, frozen=True):
    """The answer to `mint`: the only place where the plaintext ever stands."""

    id: str
    name: str
    key: str
    credit: Decimal | None
    daily_budget: Decimal | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    models: tuple[str, ...] | None
    created: str
    expires: str | None

    def __repr__(self) -> str:
        """Name the key without its plaintext: tracebacks and logs print values."""
        return f"<MintedKey {self.id}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Say the same to Rich, which prints the values of a traceback's variables."""
        return [("id", self.id)]


class MintOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new key shall be; amounts are decimal text, `"unlimited"` for no limit of credit."""

    name: str
    credit: str = "0"
    daily_budget: str | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    models: list[str] | None = None
    expires: str | None = None


class TopUpOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credits to add, as decimal text."""

    credit: str


class AddModelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A local model to put into the user's catalogue."""

    path: str
    """Absolute: a .gguf file, or a Hugging Face folder."""
    id: str | None = None
    task: str | None = None


class PriceView(msgspec.Struct, frozen=True):
    """Credits for one native unit."""

    realtime: Decimal
    batch: Decimal
    unit: str


class TuningView(msgspec.Struct, frozen=True):
    """How a model is spread over this machine's cores."""

    lanes: int
    threads: int
    """Of each lane while others compute too."""
    threads_alone: int
    bin_tokens: int
    flash_attention: bool | None
    """None: the library decides."""
    origin: str
    """`default`, `calibrated` or `settings`."""


class ModelView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model as `GET /v1/models` shows it: the contract's fields and OpenAI's."""

    id: str
    object: str
    created: int
    owned_by: str
    task: str
    params: int
    pricing: PriceView
    available: bool
    loaded: bool
    max_input_tokens: int
    license: str
    description: str
    aliases: tuple[str, ...]
    quantization: str
    dimensions: int | None = None
    matryoshka: tuple[int, ...] | None = None
    reason: str | None = None
    """Why it is not available."""
    tuning: TuningView | None = None
    """None until it is loaded for the first time."""


class ModelList(msgspec.Struct, frozen=True):
    """`GET /v1/models`."""

    object: str
    data: list[ModelView]


class Health(msgspec.Struct, frozen=True):
    """`GET /health`."""

    status: str
    version: str
    models_loaded: int


def decimal_credits(amount: int | None) -> Decimal | None:
    """Return picocredits as decimal credits; None stays None."""
    return None if amount is None else credits_of(amount)
