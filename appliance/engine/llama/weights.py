"""Weights: a model file in memory, and the contexts that compute with it.

Owns the model's handle and the parameters of every context.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import llama_cpp

from appliance.catalog.capacity import DECODERS
from appliance.catalog.pooling import is_mean_of_tokens
from appliance.core.errors import LoadFailed
from appliance.engine.backend import Backend, EngineLimits, ModelFacts
from appliance.engine.llama.affinity import process_cores
from appliance.engine.llama.decoder import DecoderBackend, adapt
from appliance.engine.llama.encoder import EncoderBackend
from appliance.engine.llama.library import load_model, routed_log
from appliance.engine.llama.native_threads import NativeThreads
from appliance.engine.llama.segments import Segments
from appliance.engine.llama.team import ThreadTeam

POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
FLASH_ATTENTION = {None: -1, False: 0, True: 1}
"""llama.cpp's values; None: on where the model's heads have a kernel for it."""
CONTEXT_MULTIPLE = 256
"""llama.cpp rounds contexts up to this."""


class LlamaWeights:
    """One loaded model, shared by its backends and read only."""

    def __init__(
        self,
        path: Path,
        *,
        pooling: str,
        limits: EngineLimits,
        segments: Segments | None,
        progress: Callable[[float], bool] | None = None,
    ) -> None:
        """Load the weights.

        `segments` is given for models that mark the second of two texts by token types; `progress`
        as `load_model` says.

        Raises:
            LoadFailed: the file cannot be used.
        """
        self.limits = limits
        self._pooling = pooling
        self._segments = segments
        self._model = load_model(path, vocabulary_only=False, progress=progress)
        self._architecture = self._text("general.architecture")
        self._is_decoder = self._architecture in DECODERS
        self._averages = is_mean_of_tokens(self._architecture, pooling)
        self.facts = self._read_facts()
        if segments is not None:
            segments.require_width(llama_cpp.llama_model_n_embd(self._model))

    def open_backend(self, limits: EngineLimits, *, flash_attention: bool | None) -> Backend:
        """Return a context that takes calls within `limits`; open it on the thread that uses it.

        Raises:
            LoadFailed: no memory, or a kind of model that is not served.
        """
        assert self._model
        if self._is_decoder and self._text(f"{self._architecture}.attention.causal") == "false":
            # `DecoderBackend` leaves tokens out that those before them would depend on.
            raise LoadFailed(f"{self._architecture} is served with causal attention only.")
        parameters = self._parameters(limits, flash_attention=flash_attention)
        with routed_log():
            context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not context:
            raise LoadFailed("the model does not fit in memory; the log says why.")
        # llama_encode on a context with memory is a segmentation fault.
        if bool(llama_cpp.llama_get_memory(context)) != self._is_decoder:
            llama_cpp.llama_free(context)
            raise LoadFailed(f"{self._architecture} models are not served; they keep a state.")
        team = ThreadTeam(int(context), process_cores(), NativeThreads())
        if self._is_decoder:
            return DecoderBackend(
                int(context), team, limits=limits, facts=self.facts, pooling=self._pooling
            )
        return EncoderBackend(
            int(context),
            team,
            limits=limits,
            facts=self.facts,
            segments=self._segments,
            averages=self._averages,
        )

    def _parameters(
        self, limits: EngineLimits, *, flash_attention: bool | None
    ) -> llama_cpp.llama_context_params:
        parameters = llama_cpp.llama_context_default_params()
        sequences = min(limits.sequences_max, limits.ubatch_tokens_max)
        # The library plans with as many tokens for each sequence as for the next, and aborts when
        # they do not come to what it was given.
        tokens = _multiple(limits.ubatch_tokens_max, sequences)
        parameters.n_ctx = _multiple(tokens, CONTEXT_MULTIPLE)
        # An encoder computes a batch in one ubatch or aborts: they must be equal.
        parameters.n_batch = parameters.n_ubatch = tokens
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = 1
        parameters.pooling_type = POOLING["none" if self._averages else self._pooling]
        parameters.flash_attn_type = FLASH_ATTENTION[flash_attention]
        parameters.embeddings = True
        parameters.kv_unified = True
        parameters.no_perf = True
        if self._is_decoder:
            adapt(parameters, self._pooling)
        return parameters

    def close(self) -> None:
        """Free the weights; every backend is closed by then."""
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = 0

    def _text(self, key: str) -> str:
        """Return a value of the file's metadata, at most 255 bytes of it; empty if there is none.

        The library spells numbers and truth values out.
        """
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def _read_facts(self) -> ModelFacts:
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._model, buffer, len(buffer))
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        width = (
            llama_cpp.llama_model_n_cls_out(self._model)
            if self._pooling == "rank"
            else llama_cpp.llama_model_n_embd_out(self._model)
        )
        trained = llama_cpp.llama_model_n_ctx_train(self._model)
        return ModelFacts(
            vocabulary=llama_cpp.llama_vocab_n_tokens(vocabulary),
            width=width,
            tokens_max=min(trained, self.limits.ubatch_tokens_max),
            description=buffer.value.decode("utf-8", "replace"),
        )


def _multiple(number: int, of: int) -> int:
    """Return the least multiple that is no less than a number."""
    return -(-number // of) * of
