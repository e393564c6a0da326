"""BytePairs: from the token ids of OpenAI's tokenizers back to texts.

Owns the reading of the vocabulary files of tiktoken (`load_tiktoken_bpe` of its `load.py`): a line
for each token, its bytes in base64, a space, its id. To decode is to look each id up and lay the
bytes side by side, so the file is all that is needed; the package itself, which encodes, too, would
bring a regular-expression engine and an HTTP client that downloads what it misses into a server
that must not. Like it, a file counts only with the hash that is published for it.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Encoding:
    """One of the published vocabularies."""

    name: str
    cached: str
    """The file's name in tiktoken's cache: the SHA-1 of the address that it is downloaded from."""
    sha256: str
    """Of the file."""
    specials: frozenset[int]
    """Ids of special tokens, which stand in no text and in no file."""


CL100K = Encoding(
    "cl100k_base",
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    frozenset({100_257, 100_258, 100_259, 100_260, 100_276}),
)
"""Of text-embedding-3 and text-embedding-ada-002: what LangChain encodes with."""
O200K = Encoding(
    "o200k_base",
    "fb374d419588a4632f3f557e76b4b70aebbca790",
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    frozenset({199_999, 200_018}),
)
"""Of GPT-4o and later models."""


class BytePairs:
    """A vocabulary by id; immutable."""

    def __init__(self, encoding: Encoding, raw: bytes) -> None:
        """Read a vocabulary file.

        Raises:
            ValueError: it is not the published one, or cannot be read.
        """
        found = hashlib.sha256(raw).hexdigest()
        if found != encoding.sha256:
            raise ValueError(f"its sha256 is {found}, not {encoding.sha256}")
        self._encoding = encoding
        self._pieces = _table(raw)

    def __repr__(self) -> str:
        return f"<BytePairs [{self._encoding.name} | {len(self._pieces)} tokens]>"

    def texts(
        self, lists: Sequence[Sequence[int]], *, param: str, is_single: bool, bytes_max: int
    ) -> list[str]:
        """Return the text of each list of ids.

        Bytes that are not UTF-8, as where a client has cut a text inside a character, become
        U+FFFD.

        Raises:
            InvalidRequest: an id is a special token's or none at all; the message gives its place.
                Or all texts together have more than `bytes_max` bytes.
        """
        texts, left = [], bytes_max
        for index, ids in enumerate(lists):
            try:
                pieces = [self._pieces[token] for token in ids]
            except KeyError:
                self._refuse(ids, param if is_single else f"{param}[{index}]", param)
            left -= sum(map(len, pieces))
            if left < 0:
                raise InvalidRequest(
                    f"{param} stands for more than {bytes_max} bytes of text; split it", param=param
                )
            joined = b"".join(pieces)
            texts.append(joined.decode("utf-8", "replace"))
        return texts

    def _refuse(self, ids: Sequence[int], where: str, param: str) -> None:
        at = next(place for place, token in enumerate(ids) if token not in self._pieces)
        name = self._encoding.name
        what = (
            f"a special token of {name}; send text alone"
            if ids[at] in self._encoding.specials
            else f"no token of {name}"
        )
        raise InvalidRequest(f"{where}[{at}] is {ids[at]}: {what}", param=param)


def _table(raw: bytes) -> dict[int, bytes]:
    pieces: dict[int, bytes] = {}
    try:
        for line in raw.splitlines():
            piece, token = line.split()
            pieces[int(token)] = base64.b64decode(piece, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"line {len(pieces) + 1} is not base64, a space and an id") from None
    return pieces
