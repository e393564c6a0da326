"""Llama: the one door to llama.cpp, through llama-cpp-python's low-level bindings.

Owns a model's weights, one context, the batch arrays and the routing of the library's log into
ours. Every call that could abort the process is preceded by the check that rules it out.
Deliberately never uses the high-level `Llama` class (it renders templates from model files, reads
rank heads out of bounds and redirects the process's standard streams), and knows no requests.
"""

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.core.errors import InferenceFailed, LoadFailed
from appliance.engine.backend import EngineLimits, ModelFacts, require_computable
from appliance.engine.vectors import Matrix
from appliance.tasks.sequence import TokenSequence

log = logging.getLogger("gigarouter.llama")

POOLING = {"mean": 1, "cls": 2, "last": 3, "rank": 4}
FLASH_ATTENTION_AUTO = -1
CONTEXT_MULTIPLE = 256
"""llama.cpp rounds contexts up to this."""

_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.ERROR}
"""ggml's levels (debug 1, info 2, warning 3, error 4) to ours; the binding's own table is an
older numbering that loses errors. The library's "info" is a page for each load, and its warnings
guess at vocabularies ("special_eos_id is not in special_eog_ids" for every BERT)."""


class _LogRoute:
    """Joins the library's fragments into lines and hands them to `logging`."""

    def __init__(self) -> None:
        self._text = ""
        self._level = logging.DEBUG

    def __call__(self, level: int, text: bytes | None, _data: int | None) -> None:
        self._text += (text or b"").decode("utf-8", "replace")
        self._level = max(self._level, _LEVELS.get(level, logging.DEBUG))
        if self._text.endswith("\n") or len(self._text) > 4096:  # noqa: PLR2004 - a runaway line
            log.log(self._level, "%s", self._text.strip())
            self._text, self._level = "", logging.DEBUG


_route = llama_cpp.llama_log_callback(_LogRoute())
# A Python callback inside a computation would wait for the GIL at each line, so the library talks
# to a native function that ignores its arguments except while a model is loaded or freed.
_silent = ctypes.cast(ctypes.CDLL(None).abs, llama_cpp.llama_log_callback)

_library = llama_cpp.llama_cpp._lib  # noqa: SLF001 - published nowhere else
# PyDLL keeps the GIL: for calls of nanoseconds, giving it up can cost milliseconds.
_quick = ctypes.PyDLL(_library._name, handle=_library._handle)  # noqa: SLF001
_quick.llama_get_embeddings_seq.restype = ctypes.c_void_p
_quick.llama_get_embeddings_seq.argtypes = (ctypes.c_void_p, ctypes.c_int32)


@cache
def start() -> None:
    """Prepare the library before its first use; later calls do nothing."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p())
    llama_cpp.llama_backend_init()


def _load(path: Path, *, vocabulary_only: bool) -> int:
    """Return the handle of a loaded model.

    Raises:
        LoadFailed: the library cannot use this file.
    """
    start()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = -1
    parameters.vocab_only = vocabulary_only
    llama_cpp.llama_log_set(_route, ctypes.c_void_p())
    try:
        handle = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    finally:
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p())
    if not handle:
        raise LoadFailed(f"{path.name} could not be loaded; the log says why.")
    return int(handle)


class LlamaBackend:
    """One model and one context; used by one thread from its creation to `close`."""

    def __init__(
        self,
        path: Path,
        *,
        pooling: str,
        threads: int,
        limits: EngineLimits,
        type_difference: npt.NDArray[np.float32] | None,
        token_rows: npt.NDArray[np.float32] | None,
    ) -> None:
        """Load the weights and make a context.

        `token_rows` (float32[n_vocab, n_embd]) and `type_difference` (float32[n_embd], token type
        1 less type 0) are given for models that tell two segments apart: llama.cpp adds type 0
        everywhere, so the rows are looked up and corrected here and passed as embeddings.

        Raises:
            LoadFailed: the file cannot be used, or not for this.
        """
        self.limits = limits
        self._token_rows = token_rows
        self._type_difference = type_difference
        self._model = _load(path, vocabulary_only=False)
        self._context: int | None = None
        try:
            self._context = self._make_context(pooling, threads)
            self.facts = self._read_facts(pooling)
        except BaseException:
            self.close()
            raise
        self._arrays = _BatchArrays(limits.ubatch_tokens_max)

    def _make_context(self, pooling: str, threads: int) -> int:
        limits = self.limits
        trained = llama_cpp.llama_model_n_ctx_train(self._model)
        if limits.ubatch_tokens_max < trained and pooling != "rank":
            log.debug("sequences are bounded by the ubatch: %d", limits.ubatch_tokens_max)
        parameters = llama_cpp.llama_context_default_params()
        padded = -(-limits.ubatch_tokens_max // CONTEXT_MULTIPLE) * CONTEXT_MULTIPLE
        parameters.n_ctx = padded
        # An encoder computes a batch in one ubatch or aborts: they must be equal.
        parameters.n_batch = parameters.n_ubatch = limits.ubatch_tokens_max
        parameters.n_seq_max = min(limits.sequences_max, limits.ubatch_tokens_max)
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.pooling_type = POOLING[pooling]
        parameters.flash_attn_type = FLASH_ATTENTION_AUTO
        parameters.embeddings = True
        parameters.kv_unified = True
        parameters.no_perf = True
        llama_cpp.llama_log_set(_route, ctypes.c_void_p())
        try:
            context = llama_cpp.llama_init_from_model(self._model, parameters)
        finally:
            llama_cpp.llama_log_set(_silent, ctypes.c_void_p())
        if not context:
            raise LoadFailed("the model does not fit in memory; the log says why.")
        if llama_cpp.llama_get_memory(context):
            llama_cpp.llama_free(context)
            # llama_encode on a context with memory is a segmentation fault.
            raise LoadFailed("decoder models are not served yet; this one keeps a KV cache.")
        return int(context)

    def _read_facts(self, pooling: str) -> ModelFacts:
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._model, buffer, len(buffer))
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        width = (
            llama_cpp.llama_model_n_cls_out(self._model)
            if pooling == "rank"
            else llama_cpp.llama_model_n_embd_out(self._model)
        )
        if self._token_rows is not None:
            assert self._token_rows.dtype == np.float32
            assert self._token_rows.shape[1] == llama_cpp.llama_model_n_embd(self._model)
        return ModelFacts(
            vocabulary=llama_cpp.llama_vocab_n_tokens(vocabulary),
            width=width,
            tokens_max=min(
                llama_cpp.llama_model_n_ctx_train(self._model), self.limits.ubatch_tokens_max
            ),
            description=buffer.value.decode("utf-8", "replace"),
        )

    def compute(self, sequences: Sequence[TokenSequence]) -> Matrix:
        """Return one row for each sequence, unnormalised, float32[n_sequences, facts.width].

        Raises:
            InferenceFailed: the library refused this bin, or answered numbers that are not finite.
        """
        assert self._context is not None
        total = require_computable(sequences, self.limits, self.facts)
        arrays = self._arrays
        arrays.fill(sequences)
        rows = self._rows(sequences, arrays, total)
        batch = arrays.batch(total, rows)
        code = llama_cpp.llama_encode(self._context, batch)
        if code != 0:
            raise InferenceFailed(f"llama.cpp answered {code}")
        llama_cpp.llama_synchronize(self._context)
        out = np.empty((len(sequences), self.facts.width), np.float32)
        row_bytes = self.facts.width * out.itemsize
        for index in range(len(sequences)):
            source = _quick.llama_get_embeddings_seq(self._context, index)
            if not source:
                raise InferenceFailed("llama.cpp gave no result for a sequence")
            # The next call overwrites the source: copy now.
            ctypes.memmove(out.ctypes.data + index * row_bytes, source, row_bytes)
        if not np.isfinite(out).all():
            raise InferenceFailed("the model answered numbers that are not finite")
        return out

    def _rows(
        self, sequences: Sequence[TokenSequence], arrays: "_BatchArrays", total: int
    ) -> Matrix | None:
        """Return the token embeddings with segment B corrected, or None to let llama.cpp look up.

        The graph adds type 0 to every row; adding (type 1 - type 0) first makes it type 1.
        """
        if self._token_rows is None or self._type_difference is None:
            return None
        rows: Matrix = self._token_rows[arrays.token[:total]]
        start = 0
        for sequence in sequences:
            end = start + len(sequence)
            rows[start + sequence.segment_b : end] += self._type_difference
            start = end
        return np.ascontiguousarray(rows)

    def close(self) -> None:
        """Free the context and the weights."""
        if self._context is not None:
            llama_cpp.llama_free(self._context)
            self._context = None
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = 0


class _BatchArrays:
    """The arrays behind `llama_batch`, allocated once and filled by slices."""

    def __init__(self, tokens_max: int) -> None:
        self.token = np.zeros(tokens_max, np.int32)
        self._position = np.zeros(tokens_max, np.int32)
        self._sequence = np.zeros(tokens_max, np.int32)
        self._counting = np.arange(tokens_max, dtype=np.int32)
        self._ones = np.ones(tokens_max, np.int32)
        # Every token is an output: pooling reads all of them.
        self._outputs = np.ones(tokens_max, np.int8)
        base = self._sequence.ctypes.data
        self._pointers = base + 4 * np.arange(tokens_max, dtype=np.uint64)

    def fill(self, sequences: Sequence[TokenSequence]) -> None:
        start = 0
        for index, sequence in enumerate(sequences):
            end = start + len(sequence)
            self.token[start:end] = sequence.tokens
            self._position[start:end] = self._counting[: len(sequence)]
            self._sequence[start:end] = index
            start = end

    def batch(self, total: int, rows: Matrix | None) -> llama_cpp.llama_batch:
        batch = llama_cpp.llama_batch()
        batch.n_tokens = total
        if rows is None:
            batch.token = _pointer(self.token, llama_cpp.llama_token)
        else:
            batch.embd = _pointer(rows, ctypes.c_float)
        batch.pos = _pointer(self._position, llama_cpp.llama_pos)
        batch.n_seq_id = _pointer(self._ones, ctypes.c_int32)
        batch.seq_id = _pointer(self._pointers, ctypes.POINTER(llama_cpp.llama_seq_id))
        batch.logits = _pointer(self._outputs, ctypes.c_int8)
        return batch


def _pointer(array: npt.NDArray[np.generic], kind: type) -> "ctypes._Pointer[ctypes._CData]":
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


class LlamaTokenizer:
    """llama.cpp's own tokenizer, for vocabularies that the reference's cannot be rebuilt from."""

    def __init__(self, path: Path) -> None:
        """Load the vocabulary alone.

        Raises:
            LoadFailed: the library cannot use this file.
        """
        self._model = _load(path, vocabulary_only=True)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)

    def encode(self, texts: Sequence[str], tokens_enough: int = 0) -> list[npt.NDArray[np.int32]]:
        """Return the ids of each text, int32[n_tokens], without special tokens.

        Text that spells a special token is ordinary text (`parse_special` is off). Safe from
        several threads; give it a thread with a large stack: some pre-tokenizers recurse once for
        each character.
        """
        del tokens_enough  # the library tokenizes a text whole
        return [self._encode(text.encode("utf-8", "replace")) for text in texts]

    def _encode(self, text: bytes) -> npt.NDArray[np.int32]:
        room = len(text) + 8
        tokens = np.empty(room, np.int32)
        count = llama_cpp.llama_tokenize(
            self._vocabulary,
            text,
            len(text),
            _pointer(tokens, llama_cpp.llama_token),
            room,
            False,
            False,
        )
        if count < 0:
            raise InferenceFailed(f"llama.cpp could not tokenize the text ({count})")
        return tokens[:count].copy()

    def close(self) -> None:
        """Free the vocabulary."""
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = 0
