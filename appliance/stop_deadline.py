"""Stop deadline: the end of a process whose stopping takes longer than it may.

Owns what is said and closed before such an end.
"""

import faulthandler
import logging
import os
import threading
from contextlib import suppress

from appliance.store.datadir import DataDir
from appliance.store.writer import Writer

log = logging.getLogger("gigarouter.serve")

BOOKS_SECONDS = 2.0
"""How long the books may take to close, before the process ends all the same."""
NATIVE_SECONDS = 8.0
"""How long after that the process ends even if native code keeps every Python thread waiting."""
STANDARD_ERROR = 2


class StopDeadline:
    """Ends the process when stopping takes longer than it may.

    Python waits at its end for threads that compute, try a model file or download, and some of
    them take minutes. Nothing that they do then is worth the wait: what was acknowledged is in the
    books, and the books are closed first.
    """

    def __init__(self, directory: DataDir, writer: Writer) -> None:
        self._directory = directory
        self._writer = writer
        self._timer: threading.Timer | None = None
        self.exit_code = 0
        """Of a process that is ended here with its books closed."""

    def within(self, seconds: float) -> None:
        """End the process so many seconds from now, in the place of what was said before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True  # Python must not wait for it, too
        self._timer.start()
        with suppress(OSError, ValueError):
            # Needs neither a Python thread nor the GIL, for the case that native code keeps both.
            faulthandler.dump_traceback_later(
                seconds + NATIVE_SECONDS, exit=True, file=STANDARD_ERROR
            )

    def _end(self) -> None:
        """Say what runs, close the books and leave; on the timer's thread."""
        running = [each for each in threading.enumerate() if each is not threading.current_thread()]
        names = ", ".join(f"{each.name} (0x{each.ident or 0:016x})" for each in running)
        log.error("stopping took too long, and the process ends now; still running: %s", names)
        with suppress(OSError, ValueError):
            faulthandler.dump_traceback(file=STANDARD_ERROR)
        closing = threading.Thread(target=self._writer.close, daemon=True)
        closing.start()
        closing.join(BOOKS_SECONDS)
        with suppress(OSError):
            self._directory.remove_note()
        os._exit(1 if closing.is_alive() or self._writer.broken.done() else self.exit_code)
