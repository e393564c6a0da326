"""What must hold before native code is called: each of these would end the process."""

import numpy as np
import pytest

from appliance.engine.backend import EngineLimits, ModelFacts, require_computable
from appliance.sequences.sequence import TokenSequence

LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
FACTS = ModelFacts(vocabulary=1000, width=4, tokens_max=500, description="test")


def sequence(tokens, segment_b=None, dtype=np.int32):
    array = np.array(tokens, dtype)
    return TokenSequence(array, len(array) if segment_b is None else segment_b, truncated=False)


GOOD = sequence([1, 2, 3])


def test_a_good_batches_tokens_are_laid_end_to_end():
    found = require_computable([GOOD, sequence([999], 0), GOOD], LIMITS, FACTS)
    assert found.dtype == np.int32
    assert found.tolist() == [1, 2, 3, 999, 1, 2, 3]


@pytest.mark.parametrize(
    "sequences",
    [
        pytest.param([sequence([5] * 500)], id="as long as the model takes"),
        pytest.param(
            [sequence([5] * 500), sequence([5] * 12)], id="as many tokens as a call takes"
        ),
        pytest.param([GOOD] * 64, id="as many sequences as a call takes"),
        pytest.param([sequence([0, 999])], id="the first and the last token"),
        pytest.param([sequence([1, 2, 3], 0), sequence([1, 2, 3], 3)], id="segments at both ends"),
    ],
)
def test_the_bounds_themselves_are_allowed(sequences):
    assert len(require_computable(sequences, LIMITS, FACTS)) == sum(map(len, sequences))


@pytest.mark.parametrize(
    "sequences",
    [
        pytest.param([], id="no sequence"),
        pytest.param([GOOD] * 65, id="too many sequences"),
        pytest.param([GOOD, sequence([])], id="an empty sequence"),
        pytest.param([sequence([5] * 501)], id="longer than the model takes"),
        pytest.param([sequence([5] * 500), sequence([5] * 13)], id="too many tokens together"),
        pytest.param([GOOD, sequence([1, -1])], id="a negative token"),
        pytest.param([GOOD, sequence([1, 1000])], id="a token above the vocabulary"),
        pytest.param([GOOD, sequence([1, 2, 3], 4)], id="a segment that begins after the end"),
        pytest.param([GOOD, sequence([1, 2, 3], -1)], id="a segment that begins before the start"),
        pytest.param([sequence([1, 2], dtype=np.int64)], id="wide integers"),
        pytest.param([sequence([1, 2], dtype=np.float32)], id="floats"),
        pytest.param([sequence([[1, 2], [3, 4]])], id="a matrix"),
    ],
)
def test_what_would_abort_the_process_is_our_own_mistake(sequences):
    with pytest.raises(AssertionError):
        require_computable(sequences, LIMITS, FACTS)


@pytest.mark.parametrize(
    ("tokens_max", "max_batch_tokens", "sequences_max"),
    [(512, 0, 64), (512, 513, 64), (0, 0, 64), (512, 256, 0), (512, 256, 257), (512, -1, 64)],
)
def test_limits_under_which_an_admitted_sequence_could_not_be_computed_are_our_own_mistake(
    tokens_max, max_batch_tokens, sequences_max
):
    with pytest.raises(AssertionError):
        EngineLimits(
            ubatch_tokens_max=tokens_max,
            max_batch_tokens=max_batch_tokens,
            sequences_max=sequences_max,
        )
