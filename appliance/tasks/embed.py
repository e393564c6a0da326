"""Embed: vectors of texts, billed by the token.

The answer is OpenAI's list of embeddings. Vectors go from the matrix to text without a Python
object for each number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from appliance.catalog.spec import ModelSpec
from appliance.core.errors import TokenInputUnsupported, UnsupportedDimensions
from appliance.engine import vectors
from appliance.engine.loader import TextEncoder
from appliance.engine.vectors import Matrix
from appliance.pricing.tariff import TaskKind
from appliance.sequences.sequence import Tokens
from appliance.tasks.own_tokens import own_tokens, require_no_words
from appliance.tasks.plan import Plan, plan_singles
from appliance.tasks.task import usage_of
from appliance.wire.bodies import EmbeddingsRequest

SLICE_ROWS = 32
"""orjson keeps the GIL: a large answer is written in slices, between which other threads get it."""
NUMBER_BYTES = 12
"""Of a number as text, about."""
BASE64_BYTES = 6
"""Of a number in base64, rounded up."""
ROW_BYTES = 50
"""Around each vector."""


@dataclass(frozen=True, slots=True)
class EmbedTask:
    """A request for the vectors of texts."""

    sent: EmbeddingsRequest

    @property
    def kind(self) -> TaskKind:
        """What a model must do to be asked this."""
        return "embeddings"

    @property
    def model(self) -> str:
        """The model's name as the client sent it."""
        return self.sent.model

    @property
    def param(self) -> str:
        """The field of the body that holds the texts."""
        return "input"

    @property
    def truncate(self) -> bool:
        """False: a text that is too long is refused."""
        return self.sent.truncate

    def validate(self, spec: ModelSpec) -> None:
        """Refuse a vector size that the model does not have, and ids of an unknown vocabulary.

        Raises:
            UnsupportedDimensions: neither its own size nor one it was trained to be cut to.
            TokenInputUnsupported: nobody has said whose ids they are.
            InvalidRequest: the model has words for a kind of text, which ids cannot be given.
        """
        require_dimensions(self.sent.dimensions, spec.entry.dimensions, spec.entry.matryoshka)
        if self.sent.token_ids is not None:
            if not self.sent.are_own:
                raise TokenInputUnsupported
            require_no_words(spec, self.sent.input_type)

    def texts(self, spec: ModelSpec) -> list[str]:
        """Return the texts, each after the model's words for its kind if that was told."""
        prompt = spec.prompt(self.sent.input_type) if self.sent.input_type else ""
        return [prompt + text for text in self.sent.texts] if prompt else self.sent.texts

    def plan(
        self, spec: ModelSpec, tokens: Sequence[Tokens], encoder: TextEncoder, tokens_max: int
    ) -> Plan:
        """Return one sequence for each text.

        Raises:
            InputTooLong, InvalidRequest: a text does not fit, or has no tokens.
        """
        del spec
        if self.sent.token_ids is not None:
            vocabulary = encoder.tokenizer.vocabulary
            tokens = own_tokens(self.sent.token_ids, vocabulary, is_single=self.sent.is_single)
        return plan_singles(
            tokens,
            encoder.frame,
            tokens_max=tokens_max,
            truncate=self.sent.truncate,
            param=self.param,
        )

    @property
    def units_at_least(self) -> int:
        """The texts: each has a token."""
        return self.sent.count

    def units(self, spec: ModelSpec, plan: Plan) -> int:
        """Return the tokens."""
        del spec
        return plan.tokens

    def answer_bytes(self, spec: ModelSpec) -> int:
        """Return about what the vectors take, as text or base64."""
        width = self.sent.dimensions or spec.entry.dimensions or 0
        each = BASE64_BYTES if self.sent.base64 else NUMBER_BYTES
        return self.sent.count * (width * each + ROW_BYTES)

    def render(self, spec: ModelSpec, plan: Plan, matrix: Matrix) -> bytes:
        """Return the answer: unit vectors in the order of the texts."""
        rows = vectors.l2_normalise(matrix)
        if self.sent.dimensions is not None and self.sent.dimensions != rows.shape[1]:
            rows = vectors.truncate_dimensions(rows, self.sent.dimensions)
        rows = np.ascontiguousarray(rows)
        parts = [
            _members(rows[first : first + SLICE_ROWS], first, base64=self.sent.base64)
            for first in range(0, len(rows), SLICE_ROWS)
        ]
        rest = orjson.dumps({"model": spec.id, "usage": usage_of(plan)})
        return b'{"object":"list","data":[' + b",".join(parts) + b"]," + rest[1:]


def require_dimensions(
    asked: int | None, dimensions: int | None, matryoshka: Sequence[int]
) -> None:
    """Refuse a vector size that the model does not have.

    Raises:
        UnsupportedDimensions: neither its own size nor one it was trained to be cut to.
    """
    if asked is None or dimensions is None or asked == dimensions or asked in matryoshka:
        return
    raise UnsupportedDimensions(asked=asked, dimensions=dimensions, sizes=matryoshka)


def _members(rows: Matrix, first: int, *, base64: bool) -> bytes:
    """Return members of the list, numbered from `first`, without its brackets."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vectors.to_base64(row) if base64 else row,
        }
        for index, row in enumerate(rows, first)
    ]
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
