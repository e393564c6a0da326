import numpy as np
import pytest

from appliance.core.errors import COUNTED_MAX, InputTooLong, InvalidRequest, UnsupportedDimensions
from appliance.sequences.sequence import Frame
from appliance.tasks.embed import require_dimensions
from appliance.tasks.plan import plan_parts, plan_singles, plan_windows

FRAME = Frame(cls=901, sep=902)


def texts(*lengths):
    return [np.arange(length, dtype=np.int32) for length in lengths]


def plan(*lengths, tokens_max=10, cut="end"):
    return plan_singles(texts(*lengths), FRAME, tokens_max=tokens_max, cut=cut, param="input")


def test_a_text_may_lose_its_beginning_instead_of_its_end():
    found = plan(3, 12, cut="start")
    assert [s.tokens.tolist() for s in found.sequences] == [
        [901, 0, 1, 2, 902],
        [901, 4, 5, 6, 7, 8, 9, 10, 11, 902],
    ]
    assert found.truncated == 1


def test_the_models_own_words_stay_where_a_text_loses_its_beginning():
    found = plan_singles(texts(3, 12), FRAME, tokens_max=10, cut="start", param="input", words=2)
    assert [s.tokens.tolist() for s in found.sequences] == [
        [901, 0, 1, 2, 902],
        [901, 0, 1, 6, 7, 8, 9, 10, 11, 902],
    ]


def test_the_models_own_words_open_each_window():
    found = plan_windows(texts(3, 12), FRAME, tokens_max=8, param="input", words=2)
    assert [s.tokens.tolist() for s in found.sequences] == [
        [901, 0, 1, 2, 902],
        [901, 0, 1, 2, 3, 4, 5, 902],
        [901, 0, 1, 6, 7, 8, 902],
        [901, 0, 1, 9, 10, 11, 902],
    ]
    assert (found.windows, found.truncated) == ((1, 3), 0)


def test_every_text_is_a_sequence_of_its_own_in_order():
    found = plan(3, 0, 8)
    assert [s.tokens.tolist() for s in found.sequences] == [
        [901, 0, 1, 2, 902],
        [901, 902],
        [901, 0, 1, 2, 3, 4, 5, 6, 7, 902],
    ]
    assert (found.tokens, found.truncated) == (17, 0)


def test_special_tokens_are_counted_and_what_was_cut_is_not():
    found = plan(8, 9, 100)
    assert [len(s) for s in found.sequences] == [10, 10, 10]
    assert (found.tokens, found.truncated) == (30, 2)


def test_a_text_that_just_fits_is_no_error_when_cutting_is_forbidden():
    assert plan(8, 8, cut="none").truncated == 0


def test_a_text_that_does_not_fit_is_named_when_cutting_is_forbidden():
    with pytest.raises(InputTooLong) as refused:
        plan(3, 9, 100, cut="none")
    assert (refused.value.index, refused.value.tokens, refused.value.tokens_max) == (1, 11, 10)
    assert refused.value.param == "input"
    assert "input[1] has 11 tokens; this model takes 10" in refused.value.message


def test_a_text_whose_tokens_were_not_all_counted_has_at_least_as_many():
    with pytest.raises(InputTooLong, match=f"has at least {COUNTED_MAX + 2} tokens"):
        plan(COUNTED_MAX, cut="none")


@pytest.mark.parametrize("asked", [None, 384, 256, 64])
def test_a_size_that_the_model_was_trained_for_is_allowed(asked):
    assert require_dimensions(asked, 384, (64, 256)) is None


def test_any_size_is_left_to_a_model_that_names_none():
    assert require_dimensions(100, None, ()) is None


@pytest.mark.parametrize(
    ("asked", "sizes", "message"),
    [
        (385, (), "dimensions=385 is not available: this model answers 384. It was not trained"),
        (128, (64, 256), "dimensions=128 is not available: this model answers 64, 256, 384.$"),
        (1, (), "answers 384"),
    ],
)
def test_another_size_is_refused_with_those_that_there_are(asked, sizes, message):
    with pytest.raises(UnsupportedDimensions, match=message) as refused:
        require_dimensions(asked, 384, sizes)
    assert refused.value.param == "dimensions"


def test_a_text_without_tokens_is_refused_where_nothing_frames_it():
    with pytest.raises(InvalidRequest) as refused:
        plan_singles(texts(3, 0), Frame(None, None), tokens_max=10, cut="end", param="input")
    assert refused.value.message == "input[1] has no tokens for this model"
    assert refused.value.param == "input"


def test_the_special_tokens_of_a_decoder_are_counted():
    framed = Frame(None, 902)
    found = plan_singles(texts(3, 9), framed, tokens_max=10, cut="none", param="input")
    assert (found.tokens, found.truncated) == (14, 0)
    with pytest.raises(InputTooLong) as refused:
        plan_singles(texts(10), framed, tokens_max=10, cut="none", param="input")
    assert refused.value.tokens == 11


def test_texts_that_are_one_are_one_sequence_billed_once():
    found = plan_parts(texts(3, 2, 4), FRAME, tokens_max=11, param="input")
    [sequence] = found.sequences
    assert sequence.parts == (4, 2, 5)
    assert (found.tokens, found.truncated, found.windows) == (11, 0, None)


def test_texts_that_are_one_must_fit_together():
    with pytest.raises(InputTooLong, match="11 tokens; this model takes 10") as error:
        plan_parts(texts(3, 2, 4), FRAME, tokens_max=10, param="input")
    assert error.value.param == "input"


def test_a_text_without_tokens_has_no_mean():
    with pytest.raises(InvalidRequest, match=r"input\[1\] has no tokens") as error:
        plan_parts(texts(3, 0, 4), FRAME, tokens_max=20, param="input")
    assert error.value.param == "input"
