"""Limits: every bound of the appliance, in one place.

Owns the numbers and the relations between them. Limits of a single key are stored with the key.
"""

from dataclasses import dataclass

HELD_BYTES_LEAST = 128 * 1024 * 1024
HELD_BYTES_MOST = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one server."""

    body_bytes_max: int = 32_000_000
    """Bytes of a request body; above it 413."""
    held_bytes_max: int = 512 * 1024 * 1024
    """Bytes of bodies and answers in memory at once; above it 429 queue_full."""
    held_bytes_per_key_max: int = 128 * 1024 * 1024
    """Bytes of them that the calls of one key may hold."""
    answer_seconds_max: float = 30.0
    """Seconds a client may read nothing of an answer; it also has a second for each 100 kB."""
    body_seconds_max: float = 30.0
    """Seconds a client may take to send its body."""
    inputs_max: int = 2_048
    """Texts or documents in one call (OpenAI's own limit)."""
    text_bytes_max: int = 1_000_000
    """UTF-8 bytes of one text: about a second of the tokenizer's work at worst."""
    request_tokens_max: int = 2_000_000
    """Tokens of one call after truncation: almost twice 2,048 full inputs of the starter model."""
    queue_tokens_max: int = 8_000_000
    """Tokens that may wait for one engine; above it 429 queue_full."""
    tokenizing_calls_max: int = 256
    """Calls that may wait for a tokenizer thread; above it 429 queue_full."""
    tokenizing_calls_per_key_max: int = 128
    """Calls of one key that may; what one key has waiting must not take all the places."""
    writes_max: int = 10_000
    """Operations that may wait for the ledger's writer thread."""
    reserve_bytes: int = 16 * 1024 * 1024
    """Disk space kept for finishing what was begun when the disk is full."""
    warming_waiters_max: int = 64
    """Calls that may wait for one model to load."""
    warming_waiters_per_key_max: int = 16
    """Calls of one key that may wait for a model, so that one key cannot take all the places."""
    wait_seconds_max: int = 60
    """The longest that `Prefer: wait=N` holds a call."""
    call_seconds_max: float = 600.0
    """Seconds until a call is given up (the OpenAI SDK's own time-out)."""
    drain_seconds_max: float = 30.0
    """Seconds that calls in flight may take to finish once the server stops."""
    close_seconds_max: float = 5.0
    """Seconds that threads may take to return once no call is in flight; then nothing is freed."""
    keys_max: int = 100_000
    """Keys in one store; all of them are held in memory."""
    failed_keys_per_minute_max: int = 60
    """Invalid keys that one address may try a minute; above it they get 429 instead of 401."""
    failing_addresses_max: int = 10_000
    """Addresses whose invalid keys are counted; the one that failed longest ago is dropped."""
    keyless_requests_per_second_max: int = 100
    """Requests without a good key that one address is answered a second; more of them wait."""
    name_chars_max: int = 200
    """Characters in the name of a key or a model."""
    file_bytes_max: int = 200_000_000
    """Bytes of one uploaded file; it goes to the disk while it arrives."""
    files_bytes_per_key_max: int = 1_000_000_000
    """Bytes of one key's files, results of batches among them; above it no upload is taken."""
    files_per_key_max: int = 1_000
    """Files of one key; above it no upload is taken."""
    uploads_per_key_max: int = 4
    """Uploads of one key at one time."""
    file_days: int = 30
    """Days until a file is deleted."""
    files_free_bytes_min: int = 256 * 1024 * 1024
    """Disk space that files leave free: the books need it more."""
    batches_open_per_key_max: int = 100
    """Batches of one key that have not ended."""
    batches_kept_per_key_max: int = 1_000
    """Batches of one key that are remembered; those that ended longest ago are forgotten."""
    batch_lines_max: int = 200_000
    """Lines of one batch; each is at most `body_bytes_max` long."""
    batch_seconds_max: int = 86_400
    """Seconds until a batch expires."""
    custom_id_chars_max: int = 512
    """Characters of a line's `custom_id`."""
    batch_lines_in_flight_max: int = 256
    """Lines of all batches that are computed, or wait to be written, at one time."""
    batch_lines_beside_realtime_max: int = 2
    """The same while realtime calls come, or one of each batch; what is begun is waited for."""
    batches_running_max: int = 16
    """Batches that advance at one time; others wait for one of them to end."""
    batches_running_per_key_max: int = 4
    """The same of one key."""
    batch_held_bytes_max: int = 64 * 1024 * 1024
    """Bytes of lines and answers of batches in memory at once, apart from those of calls."""
    batch_held_bytes_per_key_max: int = 16 * 1024 * 1024
    """Bytes of them that the batches of one key may hold."""

    @classmethod
    def of_machine(cls, memory_bytes: int) -> "Limits":
        """Return the bounds of a server that has so much memory: an eighth holds bodies."""
        held = min(max(memory_bytes // 8, HELD_BYTES_LEAST), HELD_BYTES_MOST)
        return cls(held_bytes_max=held, held_bytes_per_key_max=held // 4)

    def __post_init__(self) -> None:
        """Check the relations between bounds."""
        assert self.text_bytes_max <= self.body_bytes_max
        assert self.held_bytes_per_key_max <= self.held_bytes_max
        assert self.request_tokens_max <= self.queue_tokens_max
        assert self.file_bytes_max <= self.files_bytes_per_key_max
        assert self.batch_held_bytes_per_key_max <= self.batch_held_bytes_max
        assert 0 < self.batches_running_per_key_max <= self.batches_running_max
        assert self.batch_lines_beside_realtime_max <= self.batch_lines_in_flight_max
        assert self.batches_open_per_key_max <= self.batches_kept_per_key_max
