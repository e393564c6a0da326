"""TokenInputs: what is done with token ids where texts are expected.

OpenAI's API takes ids of its own tokenizers, and LangChain's client sends them unless it is told
not to. Read as the ids of another model they would give vectors of noise, so they are refused,
or turned back into the text that they came from. Nothing is ever downloaded for it.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import msgspec

from appliance.accounts.key import Key
from appliance.call import Meant
from appliance.core.errors import ApplianceError, TokenInputUnsupported
from appliance.core.limits import Limits
from appliance.model_lookup import ModelLookup
from appliance.scheduler.threads import ThreadPool
from appliance.sequences.byte_pairs import CL100K, O200K, BytePairs, Encoding
from appliance.settings import TokenIds, tiktoken_caches
from appliance.tasks.embed import EmbedTask
from appliance.wire.questions import EmbeddingsRequest
from appliance.wire.texts import require_texts

log = logging.getLogger("gigarouter.tokens")

INLINE_IDS = 2_000
"""Up to so many ids are turned into text on the event loop."""
ENCODINGS: dict[str, Encoding] = {"cl100k_base": CL100K, "o200k_base": O200K}
AUTO = "cl100k_base"
CARRIERS = (
    ("litellm", "litellm_core_utils/tokenizers"),
    ("llama_index", "core/_static/tiktoken_cache"),
)
"""Packages that bring vocabularies along, and where; none of them is imported."""


class TokenInputs:
    """Turns token ids into texts, by the operator's choice."""

    def __init__(
        self,
        chosen: TokenIds,
        folder: str,
        data_directory: Path,
        models: ModelLookup,
        threads: ThreadPool,
        limits: Limits,
    ) -> None:
        """Look for vocabularies in `folder` (empty: none is named) and where they usually are."""
        self._chosen = chosen
        self._folder = folder
        self._data_directory = data_directory
        self._models = models
        self._threads = threads
        self._limits = limits
        self._known: dict[str, BytePairs] = {}
        self._told: set[Path] = set()
        """Files that the log has named as not the published ones."""

    async def resolved(self, task: EmbedTask, key: Key, meant: Meant | None = None) -> EmbedTask:
        """Return a task with texts, or with ids that are the model's own; others as they are.

        `meant` is told of the model, if ids are sent for one that is known.

        Raises:
            TokenInputUnsupported: ids are refused, or their vocabulary is not here.
            InvalidRequest: an id is none that stands for text, or a text is too large.
            QueueFull: too many calls of the key wait for a thread.
        """
        sent = task.sent
        if sent.token_ids is None:
            return task
        choice = self._choice(sent.model, key, meant)
        if choice == "own":
            own = msgspec.structs.replace(sent, are_own=True)
            return replace(task, sent=own)
        if choice == "reject":
            raise TokenInputUnsupported(param=sent.param)
        name = AUTO if choice == "auto" else choice
        ids = sum(map(len, sent.token_ids))
        if ids <= INLINE_IDS and name in self._known:
            texts = self._texts(name, sent)
        else:
            future = self._threads.submit(self._texts, name, sent, key=key.id, cost=ids)
            texts = await asyncio.wrap_future(future)
        return replace(task, sent=msgspec.structs.replace(sent, texts=texts, token_ids=None))

    def _choice(self, model: str | None, key: Key, meant: Meant | None) -> TokenIds:
        """Return what the model's entry says, or else the setting."""
        try:
            own = self._models.resolve(key, model, "embeddings", meant).entry.token_ids
        except ApplianceError:  # the pipeline says so, to whom and how it should
            own = None
        return own or self._chosen

    def _texts(self, name: str, sent: EmbeddingsRequest) -> list[str]:
        assert sent.token_ids is not None
        vocabulary = self._known.get(name) or self._read(ENCODINGS[name])
        if vocabulary is None:
            raise TokenInputUnsupported(name, param=sent.param)
        self._known[name] = vocabulary
        texts = vocabulary.texts(
            sent.token_ids,
            param=sent.param,
            is_single=sent.is_single,
            bytes_max=self._limits.body_bytes_max,
        )
        require_texts(texts, self._limits, param=sent.param)
        return texts

    def _read(self, encoding: Encoding) -> BytePairs | None:
        """Return a vocabulary from the first place that has the published file."""
        for path in self._places(encoding):
            try:
                return BytePairs(encoding, path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                if path not in self._told:
                    self._told.add(path)
                    log.warning("%s is not used as %s: %s", path, encoding.name, error)
        return None

    def _places(self, encoding: Encoding) -> Iterator[Path]:
        folders: Sequence[Path] = (
            *([Path(self._folder)] if self._folder else []),
            *tiktoken_caches(),
            self._data_directory / "tiktoken",
            *_carried(),
        )
        for folder in folders:
            yield folder / encoding.cached
            yield folder / f"{encoding.name}.tiktoken"


def _carried() -> Iterator[Path]:
    """Yield the folders of installed packages that hold vocabularies; nothing is imported."""
    for package, folder in CARRIERS:
        found = find_spec(package)
        for place in found.submodule_search_locations or () if found else ():
            yield Path(place) / folder
