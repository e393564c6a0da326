"""Embed: vectors of texts, billed by the token.

The vectors are computed here; how an answer is written is its client's shape
(`appliance/shapes/`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidRequest, TokenInputUnsupported, UnsupportedDimensions
from appliance.engine import vectors
from appliance.engine.loader import TextEncoder
from appliance.engine.tokenizer import TOKENS_ENOUGH
from appliance.engine.vectors import Matrix
from appliance.pricing.tariff import TaskKind
from appliance.sequences.sequence import Tokens
from appliance.tasks.own_tokens import own_tokens, require_no_words
from appliance.tasks.plan import Plan, plan_parts, plan_singles, plan_windows
from appliance.tasks.task import WHOLE
from appliance.wire.questions import EmbeddingsRequest, VectorType

NUMBER_BYTES: dict[VectorType, float] = {
    "float": 12,
    "float16": 8,
    "int8": 4,
    "uint8": 4,
    "binary": 4 / 8,
    "ubinary": 4 / 8,
}
"""Of a number as text, about."""
BASE64_BYTES: dict[VectorType, float] = {
    "float": 6,
    "float16": 3,
    "int8": 1.5,
    "uint8": 1.5,
    "binary": 1.5 / 8,
    "ubinary": 1.5 / 8,
}
"""Of a number in base64, rounded up."""
ROW_BYTES = 50
"""Around each vector."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was asked and what was found, to be written in some shape."""

    sent: EmbeddingsRequest
    spec: ModelSpec
    plan: Plan
    rows: Matrix
    """In the order of the texts; of length 1 unless otherwise asked."""


Writer = Callable[[Embedded], bytes]
"""Writes the body of an answer."""


@dataclass(frozen=True, slots=True)
class EmbedTask:
    """A request for the vectors of texts."""

    sent: EmbeddingsRequest
    write: Writer
    echoes: bool = False
    """Whether the answer repeats the texts."""
    shape: str = ""
    """Tells apart how one body is read; with it calls are known again that are sent twice."""

    @property
    def kind(self) -> TaskKind:
        """What a model must do to be asked this."""
        return "embeddings"

    @property
    def model(self) -> str | None:
        """The model's name as the client sent it; None: it named none."""
        return self.sent.model

    @property
    def param(self) -> str:
        """The field of the body that holds the texts."""
        return self.sent.param

    def tokens_enough(self, tokens_max: int) -> int:
        """Return after how many tokens of a text the others make no difference."""
        if self.sent.is_windowed:
            return WHOLE
        if self.sent.is_joined:
            return TOKENS_ENOUGH
        return {"end": tokens_max, "none": TOKENS_ENOUGH, "start": WHOLE}[self.sent.cut]

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
        """Return the texts, each after the model's words for its kind if that was told.

        Texts that are one have them once.
        """
        words = self._words(spec)
        if words and self.sent.is_joined:
            first, *others = self.sent.texts
            return [words + first, *others]
        return [words + text for text in self.sent.texts] if words else self.sent.texts

    def _words(self, spec: ModelSpec) -> str:
        """Return the model's words for what the texts are; often none."""
        return spec.prompt(self.sent.input_type) if self.sent.input_type else ""

    def size(self, texts: Sequence[str]) -> int:
        """Return about how many characters there are to tokenize, or to look at as ids."""
        ids = sum(map(len, self.sent.token_ids or ()))
        return sum(map(len, texts)) + ids

    def plan(
        self, spec: ModelSpec, tokens: Sequence[Tokens], encoder: TextEncoder, tokens_max: int
    ) -> Plan:
        """Return one sequence for each text, one for each of its windows, or one for all texts.

        Raises:
            InputTooLong, InvalidRequest: a text does not fit, or has no tokens; the texts cannot
                be read as one.
        """
        if self.sent.token_ids is not None:
            vocabulary = encoder.tokenizer.vocabulary
            tokens = own_tokens(self.sent, vocabulary)
        if self.sent.is_joined:
            if not encoder.averages:
                raise InvalidRequest(
                    f"late_chunking is for models whose vector is the mean of their tokens' "
                    f"(pooling: mean); {spec.id} is none",
                    param="late_chunking",
                )
            return plan_parts(tokens, encoder.frame, tokens_max=tokens_max, param=self.param)
        words = 0
        if self.sent.is_windowed or self.sent.cut == "start":
            # What the tokenizer makes of them alone: it may join the last one with the text.
            [opening] = encoder.tokenizer.encode([self._words(spec)])
            words = min(len(opening), tokens_max // 2)
        if self.sent.is_windowed:
            return plan_windows(
                tokens, encoder.frame, tokens_max=tokens_max, param=self.param, words=words
            )
        return plan_singles(
            tokens,
            encoder.frame,
            tokens_max=tokens_max,
            cut=self.sent.cut,
            param=self.param,
            words=words,
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
        sent = self.sent
        width = sent.dimensions or spec.entry.dimensions or 0
        sizes = BASE64_BYTES if sent.base64 else NUMBER_BYTES
        each = sum(round(width * sizes[kind]) + ROW_BYTES for kind in sent.types)
        echoed = sum(map(len, sent.texts)) if self.echoes else 0
        return sent.count * each + echoed

    def render(self, spec: ModelSpec, plan: Plan, matrix: Matrix) -> bytes:
        """Return the answer: vectors in the order of the texts, of length 1 unless asked."""
        sent = self.sent
        if plan.windows is not None:
            weights = [len(window) for window in plan.sequences]
            matrix = vectors.mean_of_windows(matrix, weights, plan.windows)
        rows = vectors.l2_normalise(matrix) if sent.normalize else matrix
        if sent.dimensions is not None and sent.dimensions != rows.shape[1]:
            shorter = vectors.truncate_dimensions(rows, sent.dimensions)
            rows = shorter if sent.normalize else rows[:, : sent.dimensions]
        return self.write(Embedded(sent, spec, plan, np.ascontiguousarray(rows)))


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
