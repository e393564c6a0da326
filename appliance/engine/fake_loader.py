"""FakeLoader: opens fake backends, for tests and for trying clients (`serve --fake`)."""

from collections.abc import Callable

from appliance.catalog.capacity import Room, sequence_tokens_max, vocabulary_size
from appliance.catalog.header_parser import read_header
from appliance.catalog.limit import limit_reason
from appliance.catalog.pooling import is_mean_of_tokens
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import LoadFailed
from appliance.engine.backend import ModelFacts, Weights
from appliance.engine.fake import FakeBackend, FakeWeights
from appliance.engine.footprint import footprint
from appliance.engine.kinds import frame_of
from appliance.engine.load_progress import LoadProgress
from appliance.engine.loader import LoadedModel, TextEncoder
from appliance.engine.model_limits import engine_limits
from appliance.engine.reference_tokenizer import reference_tokenizer
from appliance.engine.tuning import Tuning, default_tuning

ROOM = Room(1 << 40, keeps_logits=False)
"""A fake has no contexts."""


class FakeLoader:
    """Opens fake backends with the real file's tokenizer and shape."""

    def __init__(self) -> None:
        self.opened: list[FakeBackend] = []
        """Every backend so far, through which a test slows, fails or ends it."""

    def open_model(self, spec: ModelSpec, progress: LoadProgress | None = None) -> LoadedModel:
        """Return a fake of the model's shape, with one worker."""
        if progress is not None:
            progress(1.0)
        header = read_header(spec.path)
        too_long = limit_reason(spec, header)
        if too_long is not None:
            raise LoadFailed(too_long)
        facts = ModelFacts(
            vocabulary=vocabulary_size(header),
            width=1 if spec.entry.pooling == "rank" else header.arch_int("embedding_length"),
            tokens_max=header.arch_int("context_length"),
            description="fake",
        )
        limits = engine_limits(header, pooling=spec.entry.pooling, room=ROOM)
        backend = FakeBackend(facts, limits)
        self.opened.append(backend)
        return LoadedModel(FakeWeights(facts, limits, [backend]), default_tuning(cores=1))

    def open_encoder(self, spec: ModelSpec) -> TextEncoder:
        """Return the real tokenizer."""
        header = read_header(spec.path)
        tokenizer = reference_tokenizer(header.metadata)
        if tokenizer is None:
            raise LoadFailed(f"the fake engine has no tokenizer for {spec.path.name}")
        tokens_max = sequence_tokens_max(header, pooling=spec.entry.pooling, room=ROOM)
        tuning = default_tuning(cores=1)
        size = footprint(header, pooling=spec.entry.pooling, room=ROOM, tuning=tuning)
        return TextEncoder(
            tokenizer,
            frame_of(header),
            tokens_max,
            model_bytes=size,
            averages=is_mean_of_tokens(header.architecture, spec.entry.pooling),
        )

    def is_measurable(self, _spec: ModelSpec) -> bool:
        """Say that there is nothing to measure."""
        return False

    def measure_tuning(
        self, _spec: ModelSpec, _weights: Weights, _is_wanted: Callable[[], bool]
    ) -> Tuning | None:
        """Return that nothing was found."""
        return None

    def tokens_max(self, spec: ModelSpec) -> int:
        """Return what the model's entry promises."""
        return spec.entry.max_input_tokens
