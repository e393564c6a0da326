"""Terminal: the end of the console when its terminal is gone.

A terminal that was closed takes no more output. Textual's writer thread then ends on the first
write, its bounded queue fills, and the main thread waits for ever to put more into it: neither a
signal's handler on the event loop nor the look at the parent process runs any more, and the thread
that reads keys spins on the end of its input. So a thread of its own watches for the hang-up.
"""

import os
import select
import sys
import threading
import time

POSITION, COLOURS = "cup", "colors"
"""What terminfo calls the move of the cursor, and the number of colours."""
GRACE_S = 3.0
"""Seconds for the console to end by itself, as it does on SIGHUP while its loop still runs."""
HUNG_UP = 129
"""128 and the number of SIGHUP: what a shell reports for it."""


def abilities() -> tuple[bool, bool]:
    """Return whether the terminal can place text, and whether it has colours, as terminfo says.

    A terminal that terminfo does not know is taken for one of today's.
    """
    try:
        import curses  # noqa: PLC0415 - not every Python has it

        curses.setupterm()
        return curses.tigetstr(POSITION) is not None, curses.tigetnum(COLOURS) >= 8  # noqa: PLR2004 - the ANSI eight
    except (ImportError, OSError, ValueError, curses.error):
        return True, True


def end_with_terminal() -> None:
    """End this process, at the latest `GRACE_S` after the terminal of its input was closed."""
    if sys.stdin is not None and sys.stdin.isatty():
        watch = threading.Thread(target=_watch, args=(sys.stdin.fileno(),), daemon=True)
        watch.start()


def _watch(terminal: int) -> None:
    poller = select.poll()
    poller.register(terminal, 0)  # a hang-up is told whatever is asked for
    [(_, event)] = poller.poll()
    if event & select.POLLNVAL:
        return  # a system that cannot poll terminals
    time.sleep(GRACE_S)
    os._exit(HUNG_UP)
