"""Template: the tokens around a pair that Qwen3-Reranker judges.

Owns the words, which are those of its model card (huggingface.co/Qwen/Qwen3-Reranker-0.6B), and the
ids of the special tokens among them. A template inside a model file is never rendered: it is a
foreign program, and a user's text in it could spell special tokens.
"""

from collections.abc import Sequence

import numpy as np

from appliance.catalog.header import Header
from appliance.core.errors import LoadFailed
from appliance.engine.tokenizer import Tokenizer
from appliance.sequences.sequence import Template, Tokens

START, END, THINK, THOUGHT = "<|im_start|>", "<|im_end|>", "<think>", "</think>"
SPECIALS = frozenset({START, END, THINK, THOUGHT})
_TASK = (
    "system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
BEFORE = (START, _TASK, END, "\n", START, "user\n")
AFTER = (END, "\n", START, "assistant\n", THINK, "\n\n", THOUGHT, "\n\n")


def qwen3_reranker(header: Header, tokenizer: Tokenizer) -> Template:
    """Return the template in a file's own tokens.

    Raises:
        LoadFailed: the vocabulary lacks one of its special tokens.
    """
    ids = {
        token: index
        for index, token in enumerate(header.get_strings("tokenizer.ggml.tokens"))
        if token in SPECIALS
    }
    missing = SPECIALS - ids.keys()
    if missing:
        raise LoadFailed(f"{header.path.name} has no {min(missing)}, which its template needs.")
    return Template(_tokens(BEFORE, ids, tokenizer), _tokens(AFTER, ids, tokenizer))


def _tokens(pieces: Sequence[str], ids: dict[str, int], tokenizer: Tokenizer) -> Tokens:
    texts = iter(tokenizer.encode([piece for piece in pieces if piece not in SPECIALS]))
    return np.concatenate(
        [[ids[piece]] if piece in SPECIALS else next(texts) for piece in pieces]
    ).astype(np.int32)
