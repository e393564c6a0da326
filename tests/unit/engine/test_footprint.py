"""What a model is said to take is what the contexts take that are opened for it."""

from types import SimpleNamespace

import pytest

from appliance.catalog.capacity import Room, context_bytes, vocabulary_size
from appliance.core.clock import SystemClock
from appliance.engine.footprint import footprint
from appliance.engine.isolation import CHILD_BYTES
from appliance.engine.model_limits import PROCESS_BYTES, TOKEN_BYTES, engine_limits, room_for
from appliance.engine.tuning import Tuning, tuning_path
from appliance.engine.tuning_choice import TuningChoice
from appliance.settings import EngineSettings
from appliance.wire.json import encode

ROOM = Room(8 << 30, keeps_logits=False)


def header(architecture, *, megabytes, vocabulary, blocks, rows, width, inner):
    names = [f"blk.{block}.attn_{part}.weight" for block in range(blocks) for part in "kv"]
    return SimpleNamespace(
        architecture=architecture,
        file_size=megabytes * 1_000_000,
        tensors={name: SimpleNamespace(name=name, shape=(rows, 64)) for name in names},
        get_list=lambda _: range(vocabulary),
        get_int=lambda _key, _default: inner,
        arch_int={"context_length": 32_768, "embedding_length": width}.__getitem__,
    )


HEADER = header(
    "qwen3", megabytes=600, vocabulary=151_669, blocks=28, rows=1024, width=1024, inner=3072
)
GEMMA = header(
    "gemma3", megabytes=290, vocabulary=262_144, blocks=18, rows=256, width=640, inner=2048
)
USUAL = Tuning(
    workers=2,
    threads=1,
    threads_alone=2,
    max_batch_tokens=256,
    flash_attention=None,
    origin="calibrated",
)


def tuned(**facts):
    return Tuning(**{**{name: getattr(USUAL, name) for name in USUAL.__struct_fields__}, **facts})


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("batch", [256, 512, 8192])
def test_each_worker_counts_with_the_context_that_it_opens(workers, batch):
    tuning = tuned(workers=workers, max_batch_tokens=batch)
    limits = engine_limits(HEADER, pooling="last", room=ROOM)
    assert limits.side_tokens_max  # only the first worker takes the longest sequences
    opened = [
        tuning.worker_limits(limits, worker=worker).ubatch_tokens_max for worker in range(workers)
    ]
    contexts = [
        context_bytes(HEADER, pooling="last", tokens=tokens, room=ROOM) for tokens in opened
    ]
    fixed = HEADER.file_size + PROCESS_BYTES + TOKEN_BYTES * vocabulary_size(HEADER)
    assert footprint(HEADER, pooling="last", room=ROOM, tuning=tuning) == fixed + sum(contexts)


def test_what_was_measured_here_or_set_counts_before_the_model_is_loaded(tmp_path):
    spec = SimpleNamespace(path=tmp_path / "m.gguf", id="m", entry=SimpleNamespace(file="m.gguf"))

    def expected(**settings):
        choice = TuningChoice(
            EngineSettings(**settings), cores=2, folder=tmp_path, clock=SystemClock()
        )
        found = choice.expected(spec)
        return found.workers, found.max_batch_tokens

    assert expected() == (2, 256)
    assert expected(workers=5, max_batch_tokens=1024) == (5, 1024)
    path = tuning_path(tmp_path, spec)
    remembered = {
        "schema": 1,
        "fingerprint": "f",
        "tuning": tuned(workers=3, max_batch_tokens=4096),
    }
    path.write_bytes(encode(remembered))
    assert expected() == (3, 4096)
    assert expected(workers=5) == (5, 4096)


@pytest.mark.parametrize("memory_mb", [920, 1_000, 1_500, 2_000, 4_000, 16_000])
@pytest.mark.parametrize(("model", "less_mb"), [(HEADER, 0), (GEMMA, 230)], ids=["qwen", "gemma"])
def test_the_longest_sequence_is_short_enough_for_the_model_to_fit_into_the_budget(
    model, less_mb, memory_mb
):
    budget = memory_mb - less_mb
    room = room_for(model, EngineSettings(memory_mb=budget))
    assert footprint(model, pooling="last", room=room) + CHILD_BYTES <= budget * 1_000_000
