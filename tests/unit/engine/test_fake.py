import threading

import numpy as np
import pytest

from appliance.core.errors import EngineDied, InferenceFailed
from appliance.engine.backend import EngineLimits, ModelFacts
from appliance.engine.fake import FakeBackend, FakeWeights
from appliance.engine.vectors import cosine_to_first
from appliance.sequences.sequence import TokenSequence

LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
FACTS = ModelFacts(vocabulary=1000, width=384, tokens_max=512, description="fake")


def sequence(*tokens):
    return TokenSequence(np.array(tokens, np.int32), len(tokens), truncated=False)


@pytest.fixture
def fake():
    return FakeBackend(FACTS, LIMITS)


def test_the_same_text_has_the_same_vector_alone_in_company_and_in_another_backend(fake):
    alone = fake.compute([sequence(1, 2, 3)])
    together = fake.compute([sequence(9), sequence(1, 2, 3)])
    other = FakeBackend(FACTS, LIMITS).compute([sequence(1, 2, 3)])
    np.testing.assert_array_equal(alone[0], together[1])
    np.testing.assert_array_equal(alone, other)
    assert alone.dtype == np.float32
    assert alone.shape == (1, 384)


def test_similar_texts_have_similar_vectors(fake):
    near, far = cosine_to_first(
        fake.compute([sequence(1, 2, 3, 4), sequence(1, 2, 3, 5), sequence(6, 7, 8, 9)])
    )
    assert near > 0.5 > far


def test_it_refuses_and_goes_on(fake):
    fake.refuse = True
    with pytest.raises(InferenceFailed):
        fake.compute([sequence(1)])
    fake.refuse = False
    assert fake.compute([sequence(1)]).shape == (1, 384)


def test_it_dies(fake):
    fake.die = True
    with pytest.raises(EngineDied):
        fake.compute([sequence(1)])


def test_it_holds_to_the_same_preconditions_as_the_native_engine(fake):
    with pytest.raises(AssertionError):
        fake.compute([sequence(1000)])
    with pytest.raises(AssertionError):
        fake.compute([])


def test_it_waits_at_its_gate(fake):
    fake.gate.clear()
    computing = threading.Thread(target=fake.compute, args=([sequence(1, 2)],))
    computing.start()
    assert fake.computed == []
    fake.gate.set()
    computing.join()
    assert fake.computed == [[2]]


def test_it_remembers_what_it_computed_and_that_it_was_closed(fake):
    fake.compute([sequence(1, 2), sequence(3)])
    fake.compute([sequence(1)], threads=3)
    assert fake.computed == [[2, 1], [1]]
    assert fake.threads == [1, 3]
    assert not fake.closed
    fake.close()
    assert fake.closed


def test_fake_weights_give_their_backends_in_turn(fake):
    other = FakeBackend(FACTS, LIMITS)
    weights = FakeWeights(FACTS, LIMITS, [fake, other])
    given = [weights.open_backend(LIMITS, flash_attention=None) for _ in range(2)]
    assert given == [fake, other]
    assert not weights.closed
    weights.close()
    assert weights.closed
