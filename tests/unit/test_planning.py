"""Planning: what is tokenized for one call has an end, whichever end of a text is cut."""

import asyncio
from types import SimpleNamespace

import pytest

from appliance import planning
from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.sequences.sequence import Frame
from appliance.tasks.embed import EmbedTask
from appliance.wire.questions import EmbeddingsRequest
from tests.unit.engine.test_vocabulary import TOKENIZER


@pytest.mark.parametrize("question", [{"cut": "start"}, {"cut": "none"}, {"is_windowed": True}])
def test_texts_that_are_read_whole_are_left_once_they_are_too_many(question):
    turns = []

    class Lease:
        async def in_thread(self, work, *arguments, key, cost):
            turns.append((key, cost))
            return work(*arguments)

    text = "a b " * (planning.SLICE_CHARS // 4)
    task = EmbedTask(
        EmbeddingsRequest(model=None, texts=[text] * 9, **question), write=lambda _: b""
    )
    spec = SimpleNamespace(id="m", entry=SimpleNamespace(max_input_tokens=16))
    encoder = SimpleNamespace(tokenizer=TOKENIZER, frame=Frame(101, 102), tokens_max=16)
    limits = Limits(request_tokens_max=60_000)
    planned = planning.planned_in_turn("key", task, spec, task.sent.texts, encoder, Lease(), limits)
    with pytest.raises(InvalidRequest, match="at least 100000 tokens; 60000 at most"):
        asyncio.run(planned)
    assert len(turns) == 2
