"""Tokenizer: llama.cpp's own, for vocabularies that the reference's cannot be rebuilt from."""

from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.core.errors import InferenceFailed, LoadFailed
from appliance.engine.llama.library import load_model, pointer
from appliance.engine.llama.vocabulary import LlamaVocabulary
from appliance.sequences.sequence import Frame

INT32_MAX = 2**31 - 1
"""The library counts bytes and tokens in 32 bits."""


class LlamaTokenizer:
    """One vocabulary, without weights."""

    def __init__(self, path: Path) -> None:
        """Load the vocabulary alone.

        Raises:
            LoadFailed: the library cannot use this file.
        """
        self._model = load_model(path, vocabulary_only=True)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary = LlamaVocabulary(self._vocabulary, self._encode)

    def encode(self, texts: Sequence[str], tokens_enough: int = 0) -> list[npt.NDArray[np.int32]]:
        """Return the ids of each text, int32[n_tokens], without special tokens.

        Text that spells a special token is ordinary text (`parse_special` is off). Safe from
        several threads; give it a thread with a large stack: some pre-tokenizers recurse once for
        each character.
        """
        del tokens_enough  # the library tokenizes a text whole
        return [self._encode(text.encode("utf-8", "replace")) for text in texts]

    def spans(self, text: str, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int64] | None:
        """Return where each token begins and ends, int64[n_tokens, 2]; None: not to be found."""
        assert self._model
        return self.vocabulary.spans(text, tokens)

    def frame(self) -> Frame:
        """Return the tokens that the library would put around a text.

        Raises:
            LoadFailed: the file needs a token for it that it does not name.
        """
        assert self._model
        vocabulary = self._vocabulary
        opening, closing = None, None
        if llama_cpp.llama_vocab_get_add_bos(vocabulary):
            opening = llama_cpp.llama_vocab_bos(vocabulary)
        if llama_cpp.llama_vocab_get_add_eos(vocabulary):
            closing = llama_cpp.llama_vocab_eos(vocabulary)
        if llama_cpp.LLAMA_TOKEN_NULL in (opening, closing):
            raise LoadFailed("the file frames texts with a token that it does not name")
        return Frame(cls=opening, sep=closing)

    def _encode(self, text: bytes) -> npt.NDArray[np.int32]:
        assert self._model
        room = len(text) + 8
        assert room < INT32_MAX
        tokens = np.empty(room, np.int32)
        count = llama_cpp.llama_tokenize(
            self._vocabulary,
            text,
            len(text),
            pointer(tokens, llama_cpp.llama_token),
            room,
            False,
            False,
        )
        if count < 0:
            raise InferenceFailed(f"llama.cpp could not tokenize the text ({count})")
        return tokens[:count].copy()

    def close(self) -> None:
        """Free the vocabulary."""
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = 0
