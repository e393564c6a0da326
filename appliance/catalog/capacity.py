"""Capacity: how long a sequence a model file can take on this program.

Owns the one number that truncation, the engine's buffers and the catalogue must agree on: a text
cut to more than the engine's ubatch would kill it. Deliberately reads headers only.
"""

from appliance.catalog.header import Header

UBATCH_TOKENS_MIN = 256
"""Room for a bin of several short sequences, whatever the model's own limit."""
OUTPUT_BYTES_MAX = 1 << 30
"""llama.cpp reserves logits for every token of a ubatch, also where there are none (4 bytes for
each entry of the vocabulary): bounds the sequences of models with large vocabularies."""


def vocabulary_size(header: Header) -> int:
    """Return how many token ids the file knows."""
    return len(header.get_list("tokenizer.ggml.tokens"))


def sequence_tokens_max(header: Header) -> int:
    """Return the tokens of the longest sequence, special ones included.

    What the model was trained for, unless the engine's buffers for it would be too large.
    """
    affordable = OUTPUT_BYTES_MAX // (4 * max(1, vocabulary_size(header)))
    return min(header.arch_int("context_length"), max(UBATCH_TOKENS_MIN, affordable))
