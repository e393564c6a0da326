"""Loader: from a catalogue entry to a backend and a tokenizer.

Owns the choice of pooling, of limits and of the tokenizer for a file.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from appliance.catalog.capacity import (
    UBATCH_TOKENS_MIN,
    is_decoder,
    sequence_tokens_max,
    vocabulary_size,
)
from appliance.catalog.header import Header, read_header
from appliance.catalog.spec import ModelSpec
from appliance.catalog.weights import read_tensor_f32
from appliance.core.clock import Clock
from appliance.core.errors import LoadFailed
from appliance.engine.backend import EngineLimits, ModelFacts, Weights
from appliance.engine.calibration import calibrate
from appliance.engine.fake import FakeBackend, FakeWeights
from appliance.engine.footprint import WORKERS, footprint
from appliance.engine.kinds import frame_of, require_kind, require_vocabulary
from appliance.engine.screening import Screen, trusted
from appliance.engine.template import qwen3_reranker
from appliance.engine.tokenizer import Tokenizer, reference_tokenizer
from appliance.engine.tuning import (
    MAX_BATCH_TOKENS,
    Tuning,
    default_tuning,
    fingerprint,
    read,
    recall,
    remember,
)
from appliance.sequences.sequence import Frame, Template
from appliance.settings import EngineSettings, prepare_native_library

log = logging.getLogger("gigarouter.loader")

SEQUENCES_MAX = 64


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Weights in memory, and how to compute with them here."""

    weights: Weights
    tuning: Tuning


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A model's tokenizer and the special tokens that frame a sequence."""

    tokenizer: Tokenizer
    frame: Frame
    tokens_max: int
    """The longest sequence that the engine takes, special tokens included."""
    template: Template | None = None
    """What stands around a pair, where the frame alone is not all."""
    model_bytes: int = 0
    """Memory that the model takes once its weights are loaded too."""

    def close(self) -> None:
        """Free the tokenizer; nobody may be using it."""
        close = getattr(self.tokenizer, "close", None)
        if close is not None:
            close()


class Loader(Protocol):
    """Opens models."""

    def open_model(self, spec: ModelSpec) -> LoadedModel:
        """Return the loaded model and its tuning; takes seconds.

        Raises:
            LoadFailed: the file is missing, damaged or of a kind we do not serve.
        """
        ...

    def open_encoder(self, spec: ModelSpec) -> TextEncoder:
        """Return the model's tokenizer; needs no weights.

        Raises:
            LoadFailed: the file is missing or damaged.
        """
        ...


class LlamaLoader:
    """Opens GGUF files with llama.cpp."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        cores: int,
        tunings: Path | None,
        clock: Clock,
        screen: Screen = trusted,
    ) -> None:
        """Prepare.

        `tunings` is the folder in which calibrations are remembered (None: they are not); `screen`
        refuses files that must not be computed in this process.
        """
        self._screen = screen
        self._settings = settings
        self._cores = cores
        self._tunings = tunings
        self._clock = clock

    def open_model(self, spec: ModelSpec) -> LoadedModel:
        """Return the loaded model and its tuning; calibrates the first time.

        Raises:
            LoadFailed: the file is missing, damaged or of a kind we do not serve.
        """
        self._screen(spec)
        weights = self.open_weights(spec)
        try:
            return LoadedModel(weights, self._tuning(spec, weights))
        except BaseException:
            weights.close()
            raise

    def open_weights(self, spec: ModelSpec) -> Weights:
        """Return the weights alone.

        Raises:
            LoadFailed: the file is missing, damaged or of a kind we do not serve.
        """
        # Imported late: it loads native libraries, which commands without a model do not need.
        prepare_native_library()
        from appliance.engine.llama.segments import Segments  # noqa: PLC0415 - see above
        from appliance.engine.llama.weights import LlamaWeights  # noqa: PLC0415 - see above

        header = read_header(spec.path)
        require_hash(spec)
        require_kind(spec, header)
        segments = None
        if spec.entry.segments:
            types = read_tensor_f32(header, "token_types.weight")
            rows = read_tensor_f32(header, "token_embd.weight")
            segments = Segments(rows, types[1] - types[0])
        return LlamaWeights(
            spec.path,
            pooling=spec.entry.pooling,
            limits=engine_limits(header, pooling=spec.entry.pooling),
            segments=segments,
        )

    def _tuning(self, spec: ModelSpec, weights: Weights) -> Tuning:
        calibrates = self._settings.calibrate
        found = self._calibrated(spec, weights) if calibrates else default_tuning(self._cores)
        return overridden(found, self._settings, cores=self._cores)

    def _calibrated(self, spec: ModelSpec, weights: Weights) -> Tuning:
        from appliance.engine.llama.library import build  # noqa: PLC0415 - native, as above

        if self._tunings is None:
            return calibrate(weights, cores=self._cores, clock=self._clock)
        path = tuning_path(self._tunings, spec)
        found_for = fingerprint(
            spec.path, pooling=spec.entry.pooling, cores=self._cores, library=build()
        )
        tuning = recall(path, found_for)
        if tuning is None:
            tuning = calibrate(weights, cores=self._cores, clock=self._clock)
            if tuning.origin == "calibrated":
                _remember(path, tuning, found_for)
        return tuning

    def open_encoder(self, spec: ModelSpec) -> TextEncoder:
        """Return the reference's tokenizer where it can be rebuilt, else llama.cpp's own.

        Raises:
            LoadFailed: the file is missing or damaged.
        """
        header = read_header(spec.path)
        tokens_max = sequence_tokens_max(header, pooling=spec.entry.pooling)
        reference = reference_tokenizer(header.metadata)
        if reference is not None:
            return TextEncoder(
                reference, frame_of(header), tokens_max, model_bytes=self._bytes(spec, header)
            )
        prepare_native_library()
        from appliance.engine.llama.tokenizer import LlamaTokenizer  # noqa: PLC0415 - as above

        self._screen(spec)
        require_hash(spec)
        require_vocabulary(header)
        tokenizer = LlamaTokenizer(spec.path)
        try:
            frame = tokenizer.frame() if is_decoder(header) else frame_of(header)
            template = qwen3_reranker(header, tokenizer) if spec.entry.template else None
        except LoadFailed:
            tokenizer.close()
            raise
        return TextEncoder(tokenizer, frame, tokens_max, template, self._bytes(spec, header))

    def _bytes(self, spec: ModelSpec, header: Header) -> int:
        known = None if self._tunings is None else read(tuning_path(self._tunings, spec))
        workers = self._settings.workers or (known.workers if known else WORKERS)
        return footprint(header, pooling=spec.entry.pooling, workers=workers)


class FakeLoader:
    """Opens the fake backend with the real file's tokenizer and shape."""

    def __init__(self) -> None:
        self.opened: list[FakeBackend] = []
        """Every backend so far, so that a test can slow it, refuse or kill."""

    def open_model(self, spec: ModelSpec) -> LoadedModel:
        """Return a fake of the model's shape, with one worker."""
        header = read_header(spec.path)
        facts = ModelFacts(
            vocabulary=vocabulary_size(header),
            width=1 if spec.entry.pooling == "rank" else header.arch_int("embedding_length"),
            tokens_max=header.arch_int("context_length"),
            description="fake",
        )
        limits = engine_limits(header, pooling=spec.entry.pooling)
        backend = FakeBackend(facts, limits)
        self.opened.append(backend)
        return LoadedModel(FakeWeights(facts, limits, [backend]), default_tuning(cores=1))

    def open_encoder(self, spec: ModelSpec) -> TextEncoder:
        """Return the real tokenizer."""
        header = read_header(spec.path)
        tokenizer = reference_tokenizer(header.metadata)
        if tokenizer is None:
            raise LoadFailed(f"the fake engine has no tokenizer for {spec.path.name}")
        tokens_max = sequence_tokens_max(header, pooling=spec.entry.pooling)
        size = footprint(header, pooling=spec.entry.pooling, workers=1)
        return TextEncoder(tokenizer, frame_of(header), tokens_max, model_bytes=size)


def tuning_path(tunings: Path, spec: ModelSpec) -> Path:
    """Return where a model's calibration is remembered."""
    return tunings / f"{spec.path.name}.tuning.json"


def overridden(tuning: Tuning, settings: EngineSettings, *, cores: int) -> Tuning:
    """Return the tuning with what the operator chose in its place."""
    workers = settings.workers or tuning.workers
    flash = {"auto": tuning.flash_attention, "on": True, "off": False}[settings.flash_attention]
    chosen = msgspec.structs.replace(
        tuning,
        workers=workers,
        threads=max(1, cores // workers) if settings.workers else tuning.threads,
        max_batch_tokens=settings.max_batch_tokens or tuning.max_batch_tokens,
        flash_attention=flash,
    )
    return tuning if chosen == tuning else msgspec.structs.replace(chosen, origin="settings")


def _remember(path: Path, tuning: Tuning, found_for: str) -> None:
    try:
        remember(path, tuning, found_for)
    except OSError as error:
        log.warning("the calibration is not kept: %s", error)


def engine_limits(header: Header, *, pooling: str) -> EngineLimits:
    """Return how much one call may hold: facts of the file, as models may share its weights."""
    return EngineLimits(
        ubatch_tokens_max=max(UBATCH_TOKENS_MIN, sequence_tokens_max(header, pooling=pooling)),
        max_batch_tokens=MAX_BATCH_TOKENS,
        sequences_max=SEQUENCES_MAX,
    )


def require_hash(spec: ModelSpec) -> None:
    """Refuse a file that is not the one the catalogue names.

    Raises:
        LoadFailed: the SHA-256 differs.
    """
    if spec.entry.sha256 is not None and sha256_of(spec.path) != spec.entry.sha256:
        raise LoadFailed(f"{spec.path.name} is not the file that the catalogue names (sha256).")


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
