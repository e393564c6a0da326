"""Tokenizing: answers about tokens and segments, for which a model's tokenizer is enough.

They cost nothing and load no weights. What bounds them is what bounds paid calls: the key's
requests and calls at one time, the bytes of bodies and answers, the tokens of a call, and turns of
each key on the tokenizers' threads.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import orjson

from appliance.accounts.held_bytes import CallBytes
from appliance.accounts.key import Key
from appliance.call import Meant
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.engine.loader import TextEncoder
from appliance.engine.tokenizer import slices
from appliance.planning import INLINE_CHARS, SLICE_CHARS
from appliance.scheduler.lease import Lease
from appliance.scheduler.residency import Residency
from appliance.sequences.segments import Cut, Segment, segments
from appliance.sequences.sequence import Tokens, frame_single
from appliance.wire.tokens import DetokenizeRequest, SegmentRequest, TokenizeRequest

# Measured as the highest `tracemalloc` peak while an answer is written, by its tokens, for English
# words, single letters and ideographs: objects and JSON stand beside each other for a moment.
TOKEN_BYTES = 26
"""Of an id in an answer; a single text's stand there twice."""
PIECE_BYTES = 125
"""Of its piece besides."""
SPAN_BYTES = 600
"""Of an object with an id, its piece and its place, as TEI lists tokens."""
SEGMENT_BYTES = 120
COPIES = 4
"""How often a single list's text stands in an answer, under the names that clients read."""
TEI_TOKENS_MAX = 100_000
"""In one answer with places: each is an object."""
COUNT_CHARS = 100
"""What a count takes besides its characters, in characters."""

Lookup = Callable[[Key, str | None, Meant], AbstractContextManager[tuple[ModelSpec, Lease]]]
"""From a model's name to the model and a lease on it: `Pipeline.looked_up`."""


@dataclass(frozen=True, slots=True)
class FreeCall:
    """Who asks, and what the call may hold."""

    key: Key
    wait_s: float
    """How long to wait for a model's file to be tried."""
    held: CallBytes
    meant: Meant = field(default_factory=Meant)


@dataclass(frozen=True, slots=True)
class FreeAnswer:
    """A body, and the model that it is about."""

    model: str
    body: bytes


class Tokenizing:
    """Answers what is asked about tokens."""

    def __init__(self, look_up: Lookup, residency: Residency, limits: Limits) -> None:
        self._look_up = look_up
        self._residency = residency
        self._limits = limits

    async def tokenize(self, call: FreeCall, sent: TokenizeRequest) -> FreeAnswer:
        """Return the tokens of texts, whole and however many a model takes.

        Raises:
            ApplianceError: every refusal of the error table that is not about money.
        """
        with self._look_up(call.key, sent.model, call.meant) as (spec, lease):
            encoder = await self._encoder(call, spec)
            tokens = await self._tokens(call, sent.texts, encoder, lease)
            size = sum(map(len, tokens))
            if sent.is_tei and size > TEI_TOKENS_MAX:
                raise InvalidRequest(
                    f"the call has {size} tokens; with their places {TEI_TOKENS_MAX} at most: "
                    "split it, or POST /v1/tokenize",
                    param="inputs",
                )
            has_pieces = sent.return_pieces or sent.is_single
            each = TOKEN_BYTES + PIECE_BYTES * has_pieces
            if sent.is_tei or sent.pairs_first:
                each = SPAN_BYTES
            call.held.take(size * each)
            render = _tei_tokens if sent.is_tei else _tokens
            if size <= INLINE_CHARS:
                return FreeAnswer(spec.id, render(spec, sent, tokens, encoder))
            body = await lease.in_thread(
                render, spec, sent, tokens, encoder, key=call.key.id, cost=size
            )
            return FreeAnswer(spec.id, body)

    async def detokenize(self, call: FreeCall, sent: DetokenizeRequest) -> FreeAnswer:
        """Return the texts that tokens stand for.

        Raises:
            InvalidRequest: an id is none of the model's; the message gives its place.
            ApplianceError: every other refusal that is not about money.
        """
        with self._look_up(call.key, sent.model, call.meant) as (spec, lease):
            encoder = await self._encoder(call, spec)
            size = sum(map(len, sent.tokens))
            call.held.take(size * TOKEN_BYTES)
            most = self._limits.body_bytes_max
            if size <= INLINE_CHARS:
                return FreeAnswer(spec.id, _detokenized(spec, sent, encoder, most))
            body = await lease.in_thread(
                _detokenized, spec, sent, encoder, most, key=call.key.id, cost=size
            )
            return FreeAnswer(spec.id, body)

    async def segment(self, call: FreeCall, sent: SegmentRequest) -> FreeAnswer:
        """Return the segments of a text.

        Raises:
            InvalidRequest: a single character does not fit into a segment.
            ApplianceError: every other refusal that is not about money.
        """
        with self._look_up(call.key, sent.model, call.meant) as (spec, lease):
            encoder = await self._encoder(call, spec)
            cutting = _Cutting(sent, spec, encoder)
            if len(sent.text) <= INLINE_CHARS:
                cutting.go_on()
            while not cutting.is_done:
                await lease.in_thread(cutting.go_on, key=call.key.id, cost=SLICE_CHARS)
            call.held.take(cutting.answer_bytes)
            if len(sent.text) <= INLINE_CHARS:
                return FreeAnswer(spec.id, cutting.rendered())
            cost = len(sent.text)
            body = await lease.in_thread(cutting.rendered, key=call.key.id, cost=cost)
            return FreeAnswer(spec.id, body)

    async def _encoder(self, call: FreeCall, spec: ModelSpec) -> TextEncoder:
        return await self._residency.encoder(spec, wait_s=call.wait_s, key=call.key.id)

    async def _tokens(
        self, call: FreeCall, texts: list[str], encoder: TextEncoder, lease: Lease
    ) -> list[Tokens]:
        """Tokenize texts, on the loop if they are short, else in turns on threads."""
        enough = self._limits.request_tokens_max
        if sum(map(len, texts)) <= INLINE_CHARS:
            return encoder.tokenizer.encode(texts, enough)
        tokens: list[Tokens] = []
        size = 0
        for part in slices(texts, SLICE_CHARS):
            cost = sum(map(len, part))
            found = await lease.in_thread(
                encoder.tokenizer.encode, part, enough, key=call.key.id, cost=cost
            )
            tokens += found
            size += sum(map(len, found))
            if size > enough:
                raise InvalidRequest(
                    f"the call has more than {enough} tokens: split it", param="input"
                )
        return tokens


class _Cutting:
    """A text on its way into segments, in slices of work."""

    def __init__(self, sent: SegmentRequest, spec: ModelSpec, encoder: TextEncoder) -> None:
        self._sent, self._spec, self._encoder = sent, spec, encoder
        most = min(spec.entry.max_input_tokens, encoder.tokens_max)
        tokens_max = sent.tokens_max or most
        if tokens_max > most:
            raise InvalidRequest(
                f"tokens_max is at most {most}: {spec.id} takes no longer text", param="tokens_max"
            )
        if sent.overlap > tokens_max // 2:
            raise InvalidRequest("overlap is at most half of tokens_max", param="overlap")
        self._enough = tokens_max
        cut = Cut(sent.by, tokens_max, sent.overlap, sent.chars_max)
        specials = encoder.frame.specials
        self._rest: Iterator[Segment] = segments(sent.text, cut, self._count, specials)
        self._found: list[Segment] = []
        self._spent = 0
        self.is_done = False

    def go_on(self) -> None:
        """Find segments for as long as a slice of work, or to the end of the text."""
        until = self._spent + SLICE_CHARS
        for found in self._rest:
            self._found.append(found)
            if self._spent >= until:
                return
        self.is_done = True

    @property
    def answer_bytes(self) -> int:
        """About how many bytes the answer has."""
        chars = sum(found.end - found.start for found in self._found)
        return len(self._found) * SEGMENT_BYTES + 2 * chars * self._sent.return_text

    def rendered(self) -> bytes:
        """Return the answer."""
        sent, found = self._sent, self._found
        total = sum(each.tokens for each in found)
        answer: dict[str, object] = {
            "object": "list",
            "model": self._spec.id,
            "data": [self._member(index, each) for index, each in enumerate(found)],
            "usage": {"total_tokens": total},
        }
        if sent.is_jina:
            answer |= {
                "num_tokens": total,
                "tokenizer": self._spec.id,
                "num_chunks": len(found),
                "chunk_positions": [(each.start, each.end) for each in found],
                "chunks": [sent.text[each.start : each.end] for each in found],
            }
        return orjson.dumps(answer)

    def _member(self, index: int, found: Segment) -> dict[str, object]:
        member: dict[str, object] = {
            "object": "segment",
            "index": index,
            "start": found.start,
            "end": found.end,
            "tokens": found.tokens,
        }
        if self._sent.return_text:
            member["text"] = self._sent.text[found.start : found.end]
        return member

    def _count(self, text: str) -> int:
        self._spent += len(text) + COUNT_CHARS
        (tokens,) = self._encoder.tokenizer.encode([text], self._enough)
        return len(tokens) + self._encoder.frame.specials


def _framed(tokens: Tokens, encoder: TextEncoder, *, with_specials: bool) -> Tokens:
    if not with_specials:
        return tokens
    most = len(tokens) + encoder.frame.specials
    return frame_single(tokens, encoder.frame, tokens_max=most).tokens


def _tokens(
    spec: ModelSpec, sent: TokenizeRequest, found: Sequence[Tokens], encoder: TextEncoder
) -> bytes:
    """Return the answer: a list like that of embeddings, and of one text what others read."""
    vocabulary = encoder.tokenizer.vocabulary
    data: list[dict[str, object]] = []
    for index, each in enumerate(found):
        tokens = _framed(each, encoder, with_specials=sent.with_specials)
        member: dict[str, object] = {
            "object": "tokens",
            "index": index,
            "tokens": tokens,
            "count": len(tokens),
        }
        if sent.return_pieces:
            member["pieces"] = vocabulary.pieces(tokens)
        data.append(member)
    specials = encoder.frame.specials if sent.with_specials else 0
    answer: dict[str, object] = {
        "object": "list",
        "model": spec.id,
        "data": data,
        "usage": {"total_tokens": sum(map(len, found)) + specials * len(found)},
    }
    if sent.is_single:
        (only,) = data
        # Cohere's clients read `token_strings` and `meta`, vLLM's `count` and `max_model_len`.
        answer |= {
            "tokens": _pairs(only) if sent.pairs_first else only["tokens"],
            "token_strings": vocabulary.pieces(np.asarray(only["tokens"], np.int32)),
            "count": only["count"],
            "max_model_len": min(spec.entry.max_input_tokens, encoder.tokens_max),
            "meta": {"api_version": {"version": "1"}},
        }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _pairs(member: dict[str, object]) -> list[dict[str, object]]:
    """Return ids with their pieces, as llama.cpp's server gives them."""
    tokens: Tokens = np.asarray(member["tokens"], np.int32)
    pieces = member["pieces"]
    assert isinstance(pieces, list)
    return [
        {"id": token, "piece": piece} for token, piece in zip(tokens.tolist(), pieces, strict=True)
    ]


def _tei_tokens(
    spec: ModelSpec, sent: TokenizeRequest, found: Sequence[Tokens], encoder: TextEncoder
) -> bytes:
    """Return TEI's answer: of each text a list of tokens with their places in it."""
    del spec
    tokenizer, frame = encoder.tokenizer, encoder.frame
    answer: list[list[dict[str, object]]] = []
    for text, tokens in zip(sent.texts, found, strict=True):
        spans = tokenizer.spans(text, tokens)
        before, after = (
            [_special(token, encoder)] if sent.with_specials and token is not None else []
            for token in (frame.cls, frame.sep)
        )
        inner = zip(
            tokens.tolist(),
            tokenizer.vocabulary.pieces(tokens),
            _places(spans, len(tokens)),
            strict=True,
        )
        middle = [
            {
                "id": token,
                "text": piece if start is None else text[start:stop],
                "special": False,
                "start": start,
                "stop": stop,
            }
            for token, piece, (start, stop) in inner
        ]
        answer.append([*before, *middle, *after])
    return orjson.dumps(answer)


def _special(token: int, encoder: TextEncoder) -> dict[str, object]:
    (name,) = encoder.tokenizer.vocabulary.pieces(np.array([token], np.int32))
    return {"id": token, "text": name, "special": True, "start": None, "stop": None}


def _places(
    spans: npt.NDArray[np.int64] | None, count: int
) -> list[tuple[int, int]] | list[tuple[None, None]]:
    if spans is None:
        return [(None, None)] * count
    return [(start, stop) for start, stop in spans.tolist()]


def _detokenized(
    spec: ModelSpec, sent: DetokenizeRequest, encoder: TextEncoder, chars_max: int
) -> bytes:
    vocabulary = encoder.tokenizer.vocabulary
    texts, left = [], chars_max // COPIES
    for index, ids in enumerate(sent.tokens):
        tokens = np.array(ids, np.int32)
        outside = np.flatnonzero(tokens >= vocabulary.size)
        if len(outside):
            at = int(outside[0])
            where = f"[{at}]" if sent.is_single else f"[{index}][{at}]"
            raise InvalidRequest(
                f"{sent.param}{where} is {ids[at]}; {spec.id} has ids 0 to {vocabulary.size - 1}",
                param=sent.param,
            )
        if not sent.with_specials:
            tokens = tokens[~vocabulary.special(tokens)]
        # Before it is joined: a few bytes of ids can stand for a hundred times as many of text.
        if vocabulary.chars_at_least(tokens) <= left:
            texts.append(vocabulary.text(tokens))
            left -= len(texts[-1])
        else:
            left = -1
        if left < 0:
            raise InvalidRequest(
                f"{sent.param} stands for more than {chars_max // COPIES} characters; split it",
                param=sent.param,
            )
    if sent.is_tei:
        return orjson.dumps(texts)
    answer: dict[str, object] = {
        "object": "list",
        "model": spec.id,
        "data": [
            {"object": "text", "index": index, "text": text} for index, text in enumerate(texts)
        ],
    }
    if sent.is_single:
        # Cohere's clients read `text`, llama.cpp's server's `content`, vLLM's `prompt`.
        answer |= {"text": texts[0], "content": texts[0], "prompt": texts[0]}
        answer["meta"] = {"api_version": {"version": "1"}}
    return orjson.dumps(answer)
