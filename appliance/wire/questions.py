"""Questions: what is asked of a model, whichever body it was sent in.

Each peer's body (`appliance/shapes/`) is translated to one of these; the pipeline knows no other.
"""

from typing import Annotated, Literal

import msgspec

from appliance.core.errors import InvalidRequest

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Word = Annotated[str, msgspec.Meta(max_length=100)]

InputType = Literal["query", "document"]
VectorType = Literal["float", "float16", "int8", "uint8", "binary", "ubinary"]
Cut = Literal["end", "start", "none"]
"""Which end of a text that is too long is cut away; none: it is refused."""

KINDS: dict[str, InputType | None] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "code.query": "query",
    "nl2code.query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval.passage": "document",
    "code.passage": "document",
    "nl2code.passage": "document",
    "classification": None,
    "clustering": None,
    "separation": None,
    "text-matching": None,
}
"""The words of OpenAI's, Cohere's, Voyage's, Jina's and NVIDIA's clients for what a text is for.
None: models have no words of their own for it, and the text is taken as it is."""

VECTOR_TYPES: dict[str, VectorType] = {
    "float": "float",
    "float32": "float",
    "float16": "float16",
    "int8": "int8",
    "uint8": "uint8",
    "binary": "binary",
    "ubinary": "ubinary",
}


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """A checked request for vectors."""

    model: str | None
    """None: the default model of the task."""
    texts: list[str]
    param: str = "input"
    """The field of the body that held the texts."""
    types: tuple[VectorType, ...] = ("float",)
    """What the numbers of a vector are, once for each list of vectors in the answer."""
    base64: bool = False
    dimensions: int | None = None
    cut: Cut = "end"
    input_type: InputType | None = None
    """None: texts are taken as they are."""
    normalize: bool = True
    is_windowed: bool = False
    """True: a text that is too long is not cut; its vector is the mean of its windows'."""
    is_joined: bool = False
    """True: the texts are one text, read in one pass, and each vector is the mean of the rows of
    its text's tokens there ("late chunking", arXiv:2409.04701)."""
    token_ids: list[list[int]] | None = None
    """Ids that were sent instead of texts; None: there are texts."""
    is_single: bool = False
    """True: one list of ids was sent by itself."""
    are_own: bool = False
    """True: the ids are known to be the model's own. Whoever does not say so, by `TokenInputs`, has
    them refused: nobody can tell by looking at them."""

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.texts if self.token_ids is None else self.token_ids)


class RerankRequest(msgspec.Struct, frozen=True):
    """A checked request for a ranking."""

    model: str | None
    """None: the default model of the task."""
    query: str
    documents: list[str]
    param: str = "documents"
    """The field of the body that held the documents."""
    top_n: int | None = None
    """None: all of them."""
    return_documents: bool = False
    raw_scores: bool = False
    truncate: bool = True
    document_tokens_max: int | None = None
    """None: as many as the model takes."""
    instruction: str | None = None
    """None: what the model was trained with."""


def kind_of(word: str, *, param: str) -> InputType | None:
    """Return what a text is by the word of any client for it; None: it is taken as it is.

    Raises:
        InvalidRequest: it is none of `KINDS`.
    """
    said = word.lower()
    if said not in KINDS:
        raise InvalidRequest(
            f"{param} is one of {', '.join(KINDS)}, not {word[:50]!r}", param=param
        )
    return KINDS[said]


def split_model(name: str | None) -> tuple[str | None, InputType | None]:
    """Split `id#query`: the way for clients that can send nothing but a model's name.

    Raises:
        InvalidRequest: another word stands there.
    """
    if name is None:
        return None, None
    model, mark, said = name.partition("#")
    if not mark:
        return model, None
    if said.lower() not in KINDS or KINDS[said.lower()] is None:
        raise InvalidRequest(f"after # stands query or document, not {said[:50]!r}", param="model")
    return model, KINDS[said.lower()]


def cut_of(
    truncate: bool | str | None,  # noqa: FBT001 - as it was sent
    *,
    truncation: bool | None = None,
    direction: str | None = None,
) -> Cut:
    """Return how a long text is cut, by any client's words for it.

    `truncate` is a boolean, or Cohere's NONE, START and END; `truncation` is Voyage's; `direction`
    is TEI's Left or Right.

    Raises:
        InvalidRequest: another word; the message names the field.
    """
    side: Cut = "end"
    if direction is not None:
        if direction.lower() not in {"left", "right"}:
            raise InvalidRequest(
                "truncation_direction is Left or Right", param="truncation_direction"
            )
        side = "start" if direction.lower() == "left" else "end"
    if isinstance(truncate, str):
        said = truncate.lower()
        if said in {"end", "start", "none"}:
            return said  # type: ignore[return-value]  # mypy does not narrow by membership
        if said not in {"true", "false"}:
            raise InvalidRequest("truncate is true, false, END, START or NONE", param="truncate")
        truncate = said == "true"
    return "none" if truncate is False or truncation is False else side


def types_of(words: str | list[str], *, param: str) -> tuple[VectorType, ...]:
    """Return the kinds of numbers that are asked for.

    Raises:
        InvalidRequest: an unknown one, none, or one twice.
    """
    said = [words] if isinstance(words, str) else words
    unknown = next((word for word in said if word not in VECTOR_TYPES), None)
    if unknown is not None:
        raise InvalidRequest(
            f"{param} is one of {', '.join(VECTOR_TYPES)}, not {unknown[:50]!r}", param=param
        )
    found = tuple(dict.fromkeys(VECTOR_TYPES[word] for word in said))
    if not found or len(found) != len(said):
        raise InvalidRequest(f"{param} names each kind once", param=param)
    return found


def one_of(first: int | None, second: int | None, *, names: tuple[str, str]) -> int | None:
    """Return a number that has two names, whichever was sent.

    Raises:
        InvalidRequest: both were sent and differ.
    """
    if first is not None and second is not None and first != second:
        raise InvalidRequest(f"{names[0]} and {names[1]} are the same; send one", param=names[1])
    return first if first is not None else second
