"""Hardening: what every process of ours does before it touches a secret.

Owns the bounds that child processes inherit: no core dump, and files for their owner alone.
"""

import os
import resource
import sys
import threading
import traceback
from types import TracebackType

from appliance.core.redaction import redacted

PRIVATE_UMASK = 0o077


def harden() -> None:
    """Forbid core dumps, keep new files from other users, and redact a last traceback.

    A core dump would hold keys and the texts of calls. Both bounds are inherited by every process
    that this one starts.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(PRIVATE_UMASK)
    sys.excepthook = _say
    threading.excepthook = _say_of_thread


def _say_of_thread(ended: threading.ExceptHookArgs) -> None:
    """Write the same of a thread that ended by an error."""
    if ended.exc_value is not None and ended.exc_type is not SystemExit:
        sys.stderr.write(f"In thread {ended.thread.name if ended.thread else '?'}:\n")
        _say(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write what Python would, without the secrets that a message may quote."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))
