"""Models: what the operator's API and `GET /v1/models` say of models.

Prices are decimal credits, exact.
"""

from decimal import Decimal

import msgspec


class AddModelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A local model to put into the user's catalogue."""

    path: str
    """Absolute: a .gguf file, or a Hugging Face folder."""
    id: str | None = None
    task: str | None = None
    pooling: str | None = None
    """`mean`, `cls` or `last`; None: what the model's files say, or what is usual."""
    replace: bool = False
    """Whether a model with this id is replaced; what the operator said of it stays."""
    note: str | None = None
    """Name of the note in `incoming/` that lets a server read the path."""


class ModelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model to do something with, by id or alias."""

    id: str


class TryOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model whose file is to be tried again."""

    id: str
    long: bool = False
    """Whether sequences up to the longest that it takes are computed too."""


class PriceOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model shall cost from now on, as decimal text for its native unit."""

    id: str
    realtime: str
    batch: str | None = None
    """None: half the realtime price."""


class AliasOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All aliases of a model; an empty list leaves only its id."""

    id: str
    aliases: list[str]


class PriceView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Credits for one native unit."""

    realtime: Decimal
    batch: Decimal
    unit: str
    tokens_per_document: int | None = None
    """A document costs as many as it begins to fill with so many tokens; None: one."""


class TuningView(msgspec.Struct, frozen=True):
    """How a model is spread over this machine's cores."""

    workers: int
    threads: int
    """Of each worker while others compute too."""
    threads_alone: int
    max_batch_tokens: int
    flash_attention: bool | None
    """None: the library decides."""
    origin: str
    """`default`, `calibrated` or `settings`."""


class LengthView(msgspec.Struct, frozen=True):
    """One long sequence that a trial computed."""

    tokens: int
    seconds: float
    peak_bytes: int
    """The most memory that the trial's process had taken by then."""


class TrialView(msgspec.Struct, frozen=True):
    """What the trial of a model's file found, in a process of its own."""

    model: str
    reason: str | None = None
    """Why the file is not used; None: it is."""
    notes: list[str] = []
    """What to know of a file that is used."""
    stderr: str = ""
    """The end of what the process wrote to standard error, if the file is not used."""
    lengths: list[LengthView] = []
    crashed_tokens: int | None = None
    """Sequences of so many tokens crashed llama.cpp, and shorter ones did not."""


class TrialRunView(msgspec.Struct, frozen=True):
    """The trial of a model's file that waits or runs now."""

    model: str
    step: str = ""
    """What it does, in words; empty: there is none."""
    lengths: list[LengthView] = []
    """Long sequences that it has computed so far."""


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
    size_bytes: int | None = None
    """Of its file here, or of what a pull fetches; None: not known."""
    matryoshka: tuple[int, ...] | None = None
    prompts: dict[str, str] | None = None
    """The words put before a text whose `input_type` is given."""
    reason: str | None = None
    """Why it is not available."""
    missing: bool = False
    """Its file is not on this machine, and that is all: a pull brings it."""
    tuning: TuningView | None = None
    """None until it is loaded for the first time."""
    notes: tuple[str, ...] = ()
    """What was assumed when it was added, in the answer to that alone."""
    download: str | None = None
    """The download that will put a file in the place of its own, in the answer to that alone."""
    trial: TrialView | None = None
    """What the trial of its file found; said to the operator alone."""


class ModelList(msgspec.Struct, frozen=True, omit_defaults=True):
    """`GET /v1/models`."""

    object: str
    data: list[ModelView]
    warning: str | None = None
    """Why the operator's own models are not among them; said to the operator alone."""


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """`GET /health`."""

    status: str
    version: str
    models_loaded: int
    starting: bool = False
    """True: the models that are loaded at the start are not all in memory; calls wait for them."""
    warning: str | None = None
    """That something which the operator wrote is not in effect."""
