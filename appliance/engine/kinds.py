"""Kinds: which model files are served, and how their texts are framed.

Owns the refusal of all others when they are loaded: of files on which llama.cpp would abort, and of
those that it would compute differently from the model's authors. All is read from the header.
"""

from appliance.catalog.capacity import is_decoder
from appliance.catalog.header import Header
from appliance.catalog.heads import PAIRS, kind_of, rank_reason
from appliance.catalog.limit import limit_reason
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import LoadFailed
from appliance.engine.reference_tokenizer import special_tokens
from appliance.sequences.sequence import Frame


def frame_of(header: Header) -> Frame:
    """Return the special tokens that frame a sequence of a model of BERT's kind."""
    specials = special_tokens(header.metadata)
    return Frame(cls=specials.cls, sep=specials.sep, seps_between=PAIRS.get(kind_of(header), 1))


def require_kind(spec: ModelSpec, header: Header) -> None:
    """Refuse a file that llama.cpp would abort on, or that we would compute otherwise than meant.

    A rank head that is missing gives numbers all the same, and they mean nothing.

    Raises:
        LoadFailed: the file is refused; the message gives the reason.
    """
    require_vocabulary(header)
    too_long = limit_reason(spec, header)
    if too_long is not None:
        raise LoadFailed(too_long)
    if spec.entry.pooling != "rank":
        return
    reason = rank_reason(header)
    if reason is not None:
        raise LoadFailed(f"{spec.path.name}: {reason}")
    if (spec.entry.template is None) == is_decoder(header):
        raise LoadFailed(f"{spec.path.name}: a template goes with decoders, and only with them.")
    if spec.entry.segments and "token_types.weight" not in header.tensors:
        raise LoadFailed(f"{spec.path.name} has no token types, which segments = true needs.")


def require_vocabulary(header: Header) -> None:
    """Refuse a vocabulary that llama.cpp would abort on.

    Raises:
        LoadFailed: it has a token twice.
    """
    tokens = header.get_strings("tokenizer.ggml.tokens")
    if len(set(tokens)) != len(tokens):
        raise LoadFailed(f"{header.path.name} has a token twice in its vocabulary.")
