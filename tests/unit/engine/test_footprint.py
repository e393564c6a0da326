"""What a model is said to take is what the contexts take that are opened for it."""

from types import SimpleNamespace

import pytest

from appliance.catalog.capacity import Room, context_bytes, vocabulary_size
from appliance.core.clock import SystemClock
from appliance.engine.footprint import PROCESS_BYTES, TOKEN_BYTES, footprint
from appliance.engine.model_limits import engine_limits
from appliance.engine.tuning import Tuning, tuning_path
from appliance.engine.tuning_choice import TuningChoice
from appliance.settings import EngineSettings
from appliance.wire.json import encode

ROOM = Room(8 << 30, keeps_logits=False)
HEADER = SimpleNamespace(
    architecture="qwen3",
    file_size=600_000_000,
    tensors={
        f"blk.{block}.attn_{part}.weight": SimpleNamespace(
            name=f"blk.{block}.attn_{part}.weight", shape=(1024, 64)
        )
        for block in range(28)
        for part in "kv"
    },
    get_list=lambda _: range(151_669),
    get_int=lambda _key, _default: 3072,
    arch_int={"context_length": 32_768, "embedding_length": 1024}.__getitem__,
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
