"""Errors: every foreseen failure, as a type with fields.

Owns the message that a caller reads and the stable `code` of each type. HTTP statuses are in the
table of `api/error_responses.py`, one row for each leaf of the tree.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from appliance.core.text import visible


class ApplianceError(Exception):
    """Root of every error that a caller can provoke or must be told of.

    The message may quote text from outside (a header, a file's metadata, what a library said): it
    is made visible here, so that no place that shows it has to.
    """

    code: ClassVar[str] = ""
    """Stable, lower-case name for programs; empty on types that have subtypes."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        self.message = visible(message)
        super().__init__(self.message)
        self.param = param
        """The request field at fault, or None."""


class RetryableError(ApplianceError):
    """An error that passes by itself; `retry_after_s` says when to try again."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, retry_after_s)
        """Whole seconds, at least 1."""


# -- the request is wrong ---------------------------------------------------------------------


class InvalidRequest(ApplianceError):
    """The body or a header is wrong; `param` names the field and the message the fix."""

    code = "invalid_request"


COUNTED_MAX = 100_000
"""Tokens of one text are counted exactly below this."""


class InputTooLong(ApplianceError):
    """A text has more tokens than the model takes and the caller forbade truncation."""

    code = "input_too_long"

    def __init__(
        self, *, index: int, tokens: int, tokens_max: int, param: str, may_be_cut: bool = True
    ) -> None:
        count = f"at least {tokens}" if tokens >= COUNTED_MAX or not may_be_cut else str(tokens)
        which = f"{param}[{index}]" if may_be_cut else param
        fix = 'Shorten it, or leave out "truncate": false.' if may_be_cut else "Shorten it."
        super().__init__(
            f"{which} has {count} tokens; this model takes {tokens_max}. {fix}",
            param=param,
        )
        self.index = index
        self.tokens = tokens
        self.tokens_max = tokens_max


class UnsupportedDimensions(ApplianceError):
    """The model cannot answer vectors of the size asked for."""

    code = "unsupported_dimensions"

    def __init__(self, *, asked: int, dimensions: int, sizes: Sequence[int]) -> None:
        allowed = ", ".join(str(size) for size in (*sizes, dimensions))
        reason = "" if sizes else " It was not trained for shorter (Matryoshka) vectors."
        super().__init__(
            f"dimensions={asked} is not available: this model answers {allowed}.{reason}",
            param="dimensions",
        )


class TokenInputUnsupported(ApplianceError):
    """The input is token ids, which are another tokenizer's and would give wrong vectors."""

    code = "token_input_unsupported"

    def __init__(self, missing: str = "", *, param: str = "input") -> None:
        """Refuse; `missing` names the vocabulary with which they could be read."""
        fix = f", or have the operator provide {missing} (setting tiktoken_dir)" if missing else ""
        super().__init__(
            f"{param} holds token ids; send text instead (in LangChain set "
            f"check_embedding_ctx_length=False){fix}.",
            param=param,
        )


class WrongTask(ApplianceError):
    """The model exists but is for another task."""

    code = "wrong_task"

    def __init__(self, *, model: str, task: str, asked: str) -> None:
        super().__init__(f"{model!r} is for {task}, not for {asked}.", param="model")


class ModelNotFound(ApplianceError):
    """No model has this name."""

    code = "model_not_found"

    def __init__(self, *, model: str, near: Sequence[str]) -> None:
        hint = f" Did you mean {', '.join(near)}?" if near else " GET /v1/models lists them."
        alias = " The operator can give a model this name, too: gigarouter models alias."
        super().__init__(f"There is no model {model!r}.{hint}{alias}", param="model")


class ModelNotServed(ApplianceError):
    """The model is in the catalogue but its file is not on this machine, or is unusable."""

    code = "model_not_served"

    def __init__(self, *, model: str, reason: str) -> None:
        super().__init__(f"{model!r} is not served here: {reason}", param="model")


class UnknownPath(ApplianceError):
    """No route has this path."""

    code = "unknown_path"

    def __init__(self, *, path: str, valid: Sequence[str]) -> None:
        super().__init__(f"There is nothing at {path}. Valid paths: {', '.join(valid)}.")


class UnknownHost(ApplianceError):
    """The request names a server that this one is not."""

    code = "unknown_host"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This server is not known as {host[:200]!r}. If it is, the operator adds the name to "
            "`hosts` in config.toml; an address always works.",
            param="Host",
        )


class ForeignOrigin(ApplianceError):
    """A page of another site has sent the request."""

    code = "foreign_origin"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"Pages of {origin[:200]!r} may not call this server; call it from a program.",
            param="Origin",
        )


class MethodNotAllowed(ApplianceError):
    """The path exists, for another method."""

    code = "method_not_allowed"

    def __init__(self, *, method: str, path: str) -> None:
        super().__init__(f"{method} is not for {path}.")


class BodyTooLarge(ApplianceError):
    """The body has more bytes than the server reads."""

    code = "body_too_large"

    def __init__(self, *, bytes_max: int) -> None:
        super().__init__(
            f"The body is larger than {bytes_max} bytes; send fewer inputs in each call."
        )


class UnsupportedEncoding(ApplianceError):
    """The body is compressed or otherwise encoded; bodies are read as they are."""

    code = "unsupported_encoding"

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"Content-Encoding {encoding[:100]!r} is not read here; send the body as plain JSON, "
            "with no encoding or with 'identity'.",
            param="Content-Encoding",
        )


class UnsupportedCharset(ApplianceError):
    """The body is said to be in another character set than UTF-8."""

    code = "unsupported_charset"

    def __init__(self, charset: str) -> None:
        super().__init__(
            f"The charset {charset[:100]!r} is not read here; JSON is UTF-8.", param="Content-Type"
        )


class UnsupportedTransferCoding(ApplianceError):
    """The message's framing has another coding than `chunked`."""

    code = "unsupported_transfer_coding"

    def __init__(self, coding: str) -> None:
        super().__init__(
            f"Transfer-Encoding {coding[:100]!r} is not read here; only 'chunked' is.",
            param="Transfer-Encoding",
        )


class ExpectationFailed(ApplianceError):
    """The request has an `Expect` header with another expectation than `100-continue`."""

    code = "expectation_failed"

    def __init__(self, expectation: str) -> None:
        super().__init__(
            f"Expect {expectation[:100]!r} cannot be met; '100-continue' can.", param="Expect"
        )


# -- the key is wrong, or has no credit -------------------------------------------------------


class MissingKey(ApplianceError):
    """The request carries no key."""

    code = "missing_api_key"

    def __init__(self) -> None:
        super().__init__("Send your key as 'Authorization: Bearer gr-...'.")


class InvalidKey(ApplianceError):
    """The key is malformed, unknown, revoked or expired; the answer never says which."""

    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("This key is not valid here. Mint one with: gigarouter keys mint NAME")


class InsufficientScope(ApplianceError):
    """The key is valid and not for this; `scope` is what it lacks."""

    code = "insufficient_scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This key lacks the scope {scope!r}.")
        self.scope = scope


class InsufficientCredit(ApplianceError):
    """The balance does not cover the exact price; nothing was computed or charged."""

    code = "insufficient_credit"

    def __init__(self, *, required: str, available: str) -> None:
        super().__init__(
            f"This call costs {required} credits and {available} are available. "
            "Ask the operator to top up the key."
        )
        self.required = required
        self.available = available


class IdempotencyKeyReused(ApplianceError):
    """The Idempotency-Key was used before, with another body."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used for another request in the last 24 hours; "
            "send a new one with each new request.",
            param="Idempotency-Key",
        )


class IdempotencyKeyInUse(ApplianceError):
    """The first call with this Idempotency-Key is not answered yet."""

    code = "idempotency_key_in_use"

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is being answered; send it again when that ends.",
            param="Idempotency-Key",
        )


class IdempotencyKeySpent(ApplianceError):
    """The call with this Idempotency-Key was charged once and repeated often enough."""

    code = "idempotency_key_spent"

    def __init__(self, *, replays_max: int) -> None:
        super().__init__(
            f"This request was answered {replays_max + 1} times for one charge; send a new "
            "Idempotency-Key to have it computed, and charged, again.",
            param="Idempotency-Key",
        )


class AlreadyMinted(ApplianceError):
    """The order to mint a key was carried out before; its plaintext is not known any more."""

    code = "already_minted"

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"This order made {key_id} before, and its plaintext was in that answer alone. "
            f"A new one: gigarouter keys rotate {key_id}",
            param="Idempotency-Key",
        )
        self.key_id = key_id


# -- not now ----------------------------------------------------------------------------------


class RateLimited(RetryableError):
    """The key's own rate is used up for now."""

    code = "rate_limited"

    def __init__(self, *, limit: str, retry_after_s: int) -> None:
        super().__init__(f"This key is limited to {limit}.", retry_after_s=retry_after_s)


class TooManyInvalidKeys(RetryableError):
    """An address tried too many keys that are not valid; valid ones from it still work."""

    code = "rate_limited"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__("Too many invalid keys from here.", retry_after_s=retry_after_s)


class DailyBudgetExceeded(RetryableError):
    """The key's budget of this UTC day is used up."""

    code = "daily_budget_exceeded"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__(
            "This key's daily budget is used up; it renews at midnight UTC.",
            retry_after_s=retry_after_s,
        )


class DailyBudgetSpent(ApplianceError):
    """The same, where the operator has it answered as a matter of credit, not of waiting."""

    code = "daily_budget_exceeded"

    def __init__(self) -> None:
        super().__init__("This key's daily budget is used up; it renews at midnight UTC.")


class QueueFull(RetryableError):
    """The model's queue has no room for this call."""

    code = "queue_full"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__("The queue is full.", retry_after_s=retry_after_s)


class ModelWarming(RetryableError):
    """The model is being loaded."""

    code = "model_warming"

    def __init__(self, *, model: str, retry_after_s: int, doing: str = "loaded") -> None:
        super().__init__(
            f"{model!r} is being {doing}; retry, or send 'Prefer: wait=30'.",
            retry_after_s=retry_after_s,
        )


class Draining(RetryableError):
    """The server is stopping and takes no new calls."""

    code = "draining"

    def __init__(self, *, retry_after_s: int = 5) -> None:
        super().__init__("The server is shutting down.", retry_after_s=retry_after_s)


class EngineRestarting(RetryableError):
    """The model's engine died and is being started again."""

    code = "engine_restarting"

    def __init__(self, *, model: str, retry_after_s: int) -> None:
        super().__init__(
            f"The engine of {model!r} is being restarted.", retry_after_s=retry_after_s
        )


class StorageFull(RetryableError):
    """The disk has no room to begin anything new; what was begun is still finished."""

    code = "storage_full"

    def __init__(self, *, retry_after_s: int = 30) -> None:
        super().__init__(
            "The server's disk is full, and nothing was charged. The operator must free space.",
            retry_after_s=retry_after_s,
        )


class LedgerUnavailable(RetryableError):
    """The books cannot be written now; nothing was acknowledged."""

    code = "ledger_unavailable"

    def __init__(self, reason: str, *, retry_after_s: int = 5) -> None:
        super().__init__(
            f"The ledger cannot be written now ({reason}); try again.",
            retry_after_s=retry_after_s,
        )
        self.reason = reason
        """SQLite's own message, which names no file."""


# -- the server's side ------------------------------------------------------------------------


class InferenceFailed(ApplianceError):
    """The engine refused this call's batch; the call is not charged."""

    code = "inference_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The model could not compute this call: {reason}")
        self.reason = reason


class EngineDied(ApplianceError):
    """The engine can compute nothing any more and must be loaded again."""

    code = "engine_restarting"


class LoadFailed(ApplianceError):
    """A model file could not be loaded."""

    code = "model_not_served"


class TrialUnfinished(LoadFailed):
    """A model file's trial ended for no fault of the file; nothing is known of it yet."""

    code = "model_not_served"

    def __init__(self, file: str, what: str) -> None:
        super().__init__(f"{file} could not be tried: {what}; try again.")
        self.what = what


class InvalidCatalog(ApplianceError):
    """A catalogue file is wrong; the message names file, line, model and key, and the remedy."""

    def __init__(self, path: Path, where: str, reason: str, *, line: int | None = None) -> None:
        at = "" if line is None else f" (line {line})"
        super().__init__(f"{path}: {where}: {reason}{at}. Mend it there, or move the file away.")
        self.path = path
        self.where = where
        """Model and key, or `file`."""
        self.reason = reason


class InvalidModelFile(ApplianceError):
    """A model file is damaged or not of a kind we can use."""

    code = "invalid_request"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}", param="path")
        self.path = path
        self.reason = reason


class DownloadFailed(ApplianceError):
    """The hub did not deliver the file; no file was put at its final name."""

    code = "download_failed"


class DownloadCancelled(ApplianceError):
    """The download was cancelled; the part that was fetched is kept for the next pull."""

    code = "download_failed"

    def __init__(self) -> None:
        super().__init__("cancelled; what was fetched is kept, and the next pull goes on from it")


class InvalidSettings(ApplianceError):
    """A setting is unknown or wrong; the message names its source and its key."""

    def __init__(self, source: str, key: str, reason: str) -> None:
        super().__init__(f"{source}: {key}: {reason}")


class KeyNotFound(ApplianceError):
    """No key has this id."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"There is no key {key_id!r}. List them with: gigarouter keys list")


class FileNotFound(ApplianceError):
    """This key has no file with this id."""

    code = "file_not_found"

    def __init__(self, file_id: str) -> None:
        super().__init__(f"There is no file {file_id[:100]!r}. GET /v1/files lists yours.")


class BatchNotFound(ApplianceError):
    """This key has no batch with this id."""

    code = "batch_not_found"

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"There is no batch {batch_id[:100]!r}. GET /v1/batches lists yours.")


class DownloadNotFound(ApplianceError):
    """No download has this id."""

    code = "download_not_found"

    def __init__(self, download_id: str) -> None:
        super().__init__(f"There is no download {download_id[:100]!r}.")


class HoldNotOpen(ApplianceError):
    """A hold was settled or released already, and can be neither a second time."""

    code = "inference_failed"

    def __init__(self, hold_id: int) -> None:
        super().__init__(f"hold {hold_id} is not open")


class StoreFailed(ApplianceError):
    """The database could not be opened, copied or replaced."""

    code = "inference_failed"


class DataDirBusy(ApplianceError):
    """Another process owns the data directory."""

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(f"{path} is in use by another gigarouter{owner}; stop it first.")


class ServerUnreachable(ApplianceError):
    """The running server did not answer, or refused the command."""


class ServiceRefused(ApplianceError):
    """The service manager of this machine cannot, or shall not, run a server as asked."""
