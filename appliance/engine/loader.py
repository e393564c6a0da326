"""Loader: from a catalogue entry to loaded weights and a tokenizer.

Owns what is checked before a file is given to llama.cpp, and the choice of its tokenizer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.catalog.capacity import Room, is_decoder, sequence_tokens_max
from appliance.catalog.header import Header
from appliance.catalog.headers import header_of
from appliance.catalog.pooling import is_mean_of_tokens
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import Clock
from appliance.core.errors import EngineDied, LoadFailed
from appliance.engine.backend import Weights
from appliance.engine.footprint import footprint
from appliance.engine.isolated_weights import IsolatedWeights
from appliance.engine.isolation import CHILD_BYTES, NOWHERE, Isolation
from appliance.engine.kinds import frame_of, require_kind, require_vocabulary
from appliance.engine.load_progress import LoadProgress
from appliance.engine.model_limits import engine_limits, room_for, served_tokens_max
from appliance.engine.reference_tokenizer import reference_tokenizer
from appliance.engine.screening import Screen, Watch, trusted, unwatched
from appliance.engine.template import qwen3_reranker
from appliance.engine.tokenizer import Tokenizer
from appliance.engine.tuning import Tuning
from appliance.engine.tuning_choice import TuningChoice
from appliance.engine.weights_order import WeightsOrder, open_here
from appliance.sequences.sequence import Frame, Template
from appliance.settings import EngineSettings, prepare_native_library
from appliance.store.digests import Digests
from appliance.store.file_state import FileState, change_of, state_of


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Weights in memory, and how they are spread over this machine's cores."""

    weights: Weights
    tuning: Tuning
    file: FileState | None = None
    """The file that the weights were read from, as it was then; None: from none."""
    notify: "Callable[[Callable[[EngineDied], None]], None] | None" = None
    """Has a function called when the model is lost though nothing is computed; None: it cannot."""


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A model's tokenizer and the special tokens that frame a sequence."""

    tokenizer: Tokenizer
    frame: Frame
    tokens_max: int
    """Tokens of the longest sequence that the engine takes, special ones included."""
    template: Template | None = None
    """The tokens around a pair, for models that need more than a frame."""
    model_bytes: int = 0
    """Bytes that the model takes once its weights are loaded too."""
    averages: bool = False
    """True: a vector is the mean of its tokens' rows, and so each part of a text can have one."""

    def close(self) -> None:
        """Free the tokenizer; no call may use it at that time or later."""
        close = getattr(self.tokenizer, "close", None)
        if close is not None:
            close()


class Loader(Protocol):
    """Opens models."""

    def open_model(self, spec: ModelSpec, progress: LoadProgress | None = None) -> LoadedModel:
        """Return the loaded model and its tuning; takes seconds, of which `progress` is told.

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

    def tokens_max(self, spec: ModelSpec) -> int:
        """Return the tokens of the longest sequence that the model takes on this machine."""
        ...

    def is_measurable(self, spec: ModelSpec) -> bool:
        """Say whether a loaded model's tuning is still to be measured."""
        ...

    def measure_tuning(
        self, spec: ModelSpec, weights: Weights, is_wanted: Callable[[], bool]
    ) -> Tuning | None:
        """Return the tuning with which a loaded model is fastest, or None if none was found.

        It takes seconds of all cores; when it is not wanted any more, it ends soon.

        Raises:
            LoadFailed: not even one backend could be opened.
            InferenceFailed: the model cannot compute.
            EngineDied: its process died.
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
        watch: Watch = unwatched,
        digests: Digests | None = None,
        isolation: Isolation = NOWHERE,
    ) -> None:
        """Prepare.

        `tunings` is the folder in which calibrations are remembered (None: they are not); `screen`
        refuses files that must not be computed at all, `watch` watches long sequences of the
        others, and `isolation` says which of them get a process of their own.
        """
        self._settings = settings
        self._digests = digests or Digests(None)
        self._screen = screen
        self._watch = watch
        self._isolation = isolation
        self._tunings = TuningChoice(settings, cores=cores, folder=tunings, clock=clock)

    def open_model(self, spec: ModelSpec, progress: LoadProgress | None = None) -> LoadedModel:
        """Return the loaded model, and the tuning that was measured before or the usual one.

        Raises:
            LoadFailed: the file is missing, damaged or of a kind we do not serve.
        """
        self._screen(spec)
        file = self._state(spec)
        weights = self.open_weights(spec, progress)
        try:
            tuning = self._tunings.choose(spec)
            _require_unchanged(spec, file)
            notify = weights.notify if isinstance(weights, IsolatedWeights) else None
            return LoadedModel(self._watch(spec, weights), tuning, file, notify)
        except BaseException:
            weights.close()
            raise

    def open_weights(self, spec: ModelSpec, progress: LoadProgress | None = None) -> Weights:
        """Return the weights alone.

        Raises:
            LoadFailed: the file is missing, damaged or of a kind we do not serve.
        """
        header = header_of(spec.path)
        self._require_hash(spec)
        require_kind(spec, header)
        order = WeightsOrder(
            str(spec.path),
            spec.entry.pooling,
            engine_limits(header, pooling=spec.entry.pooling, room=self._room(header)),
            spec.entry.segments,
        )
        if not self._isolation.applies(spec):
            return open_here(order, progress)
        seconds = self._isolation.batch_seconds_max
        return IsolatedWeights(order, name=spec.id, batch_seconds_max=seconds, progress=progress)

    def open_encoder(self, spec: ModelSpec) -> TextEncoder:
        """Return the reference's tokenizer where it can be rebuilt, else llama.cpp's own.

        Raises:
            LoadFailed: the file is missing or damaged.
        """
        header = header_of(spec.path)
        tokens_max = sequence_tokens_max(
            header, pooling=spec.entry.pooling, room=self._room(header)
        )
        averages = is_mean_of_tokens(header.architecture, spec.entry.pooling)
        reference = reference_tokenizer(header.metadata)
        if reference is not None:
            return TextEncoder(
                reference,
                frame_of(header),
                tokens_max,
                model_bytes=self._bytes(spec, header),
                averages=averages,
            )
        # Imported late: this loads native libraries, which most commands do not need.
        prepare_native_library()
        from appliance.engine.llama.tokenizer import LlamaTokenizer  # noqa: PLC0415 - see above

        self._screen(spec)
        self._require_hash(spec)
        require_vocabulary(header)
        tokenizer = LlamaTokenizer(spec.path)
        try:
            frame = tokenizer.frame() if is_decoder(header) else frame_of(header)
            template = qwen3_reranker(header, tokenizer) if spec.entry.template else None
        except LoadFailed:
            tokenizer.close()
            raise
        size = self._bytes(spec, header)
        return TextEncoder(tokenizer, frame, tokens_max, template, size, averages)

    def _bytes(self, spec: ModelSpec, header: Header) -> int:
        tuning = self._tunings.expected(spec)
        room = self._room(header)
        size = footprint(header, pooling=spec.entry.pooling, room=room, tuning=tuning)
        return size + (CHILD_BYTES if self._isolation.applies(spec) else 0)

    def _state(self, spec: ModelSpec) -> FileState:
        try:
            return state_of(spec.path)
        except OSError as error:
            raise LoadFailed(f"{spec.path.name} cannot be read: {error.strerror}") from None

    def _room(self, header: Header) -> Room:
        return room_for(header, self._settings)

    def is_measurable(self, spec: ModelSpec) -> bool:
        """Say whether a loaded model's tuning is still to be measured."""
        return self._tunings.is_measurable(spec)

    def measure_tuning(
        self, spec: ModelSpec, weights: Weights, is_wanted: Callable[[], bool] = lambda: True
    ) -> Tuning | None:
        """Return the tuning with which a loaded model is fastest, or None if none was found.

        Raises:
            LoadFailed: not even one backend could be opened.
            InferenceFailed: the model cannot compute.
            EngineDied: its process died.
        """
        return self._tunings.measure(spec, weights, is_wanted)

    def tokens_max(self, spec: ModelSpec) -> int:
        """Return the tokens of the longest sequence that the model takes on this machine."""
        return served_tokens_max(spec, self._settings)

    def _require_hash(self, spec: ModelSpec) -> None:
        """Refuse a file that is not the one the catalogue names."""
        named = spec.entry.sha256
        if named is not None and self._digests.sha256(spec.path) != named:
            raise LoadFailed(f"{spec.path.name} is not the file that the catalogue names (sha256).")


def _require_unchanged(spec: ModelSpec, file: FileState) -> None:
    """Refuse weights of which nobody knows from which of two contents they were read."""
    changed = change_of(spec.path, file)
    if changed is not None:
        raise LoadFailed(f"{changed} while it was loaded; load it again.")
