"""OwnTokens: ids that a client made with the model's own tokenizer, in the place of texts."""

from collections.abc import Sequence

import numpy as np

from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidRequest
from appliance.engine.vocabulary import Vocabulary
from appliance.sequences.sequence import Tokens
from appliance.wire.questions import EmbeddingsRequest, InputType


def own_tokens(sent: EmbeddingsRequest, vocabulary: Vocabulary) -> list[Tokens]:
    """Return the ids that were sent as the tokens of texts, int32[n_tokens] each.

    Raises:
        InvalidRequest: an id is outside of the vocabulary, or a special token's, with which a text
            could forge its own frame; the message gives its place.
    """
    found = []
    for index, ids in enumerate(sent.token_ids or ()):
        tokens = np.array(ids, np.int32)
        where = sent.param if sent.is_single else f"{sent.param}[{index}]"
        outside = np.flatnonzero((tokens < 0) | (tokens >= vocabulary.size))
        if len(outside):
            last = vocabulary.size - 1
            _refuse(sent.param, where, ids, int(outside[0]), f"the model has ids 0 to {last}")
        special = np.flatnonzero(vocabulary.special(tokens))
        if len(special):
            _refuse(
                sent.param,
                where,
                ids,
                int(special[0]),
                "a special token; send those of the text alone",
            )
        found.append(tokens)
    return found


def require_no_words(spec: ModelSpec, kind: InputType | None) -> None:
    """Refuse ids before which the model's words for a kind of text would have to stand.

    `kind` is None where none was told; then there are no such words.

    Raises:
        InvalidRequest: the model has such words; `param` is `input_type`.
    """
    if kind is not None and spec.prompt(kind):
        raise InvalidRequest(
            f"{spec.id} has words for a {kind}, which are put before texts and not before token "
            "ids: send text, or the ids of both without input_type",
            param="input_type",
        )


def _refuse(param: str, where: str, ids: Sequence[int], at: int, reason: str) -> None:
    raise InvalidRequest(f"{where}[{at}] is {ids[at]}: {reason}", param=param)
