"""Truncation: how many tokens of each text a model is shown.

Owns the arithmetic that the Hugging Face reference calls `longest_first`, so that a text which is
too long is cut where the model's own authors cut it.
"""


def single(tokens: int, limit: int) -> int:
    """Return how many of `tokens` leading tokens fit in `limit`."""
    assert tokens >= 0
    assert limit >= 0
    return min(tokens, limit)


def pair_lengths(first: int, second: int, limit: int) -> tuple[int, int]:
    """Return how many leading tokens of each text fit together in `limit`.

    The longer text is cut until both are equally long, then both are; an odd token goes to the
    second text, or to the first where the first was the longer one. All are counts of tokens;
    the answers never exceed `first` and `second`, and their sum is `min(first + second, limit)`.
    """
    assert first >= 0
    assert second >= 0
    assert limit >= 0
    if first + second <= limit:
        return first, second
    shorter = min(first, second)
    if 2 * shorter <= limit:
        kept_short, kept_long = shorter, limit - shorter
    else:
        # The older Python tokenizers take the odd token from the other text when both are equally
        # long; the Rust ones, which every current model card was made with, do it this way.
        kept_short, kept_long = limit // 2, limit - limit // 2
    return (kept_long, kept_short) if first > second else (kept_short, kept_long)


def window_lengths(tokens: int, limit: int) -> list[int]:
    """Return the lengths of the fewest parts of `tokens` that each fit in `limit`.

    They differ by one at most, the longer ones first, and their sum is `tokens`; of no tokens
    there is one part.
    """
    assert tokens >= 0
    assert limit > 0
    parts = max(1, -(-tokens // limit))
    each, longer = divmod(tokens, parts)
    return [each + 1] * longer + [each] * (parts - longer)
