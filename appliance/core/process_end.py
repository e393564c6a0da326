"""Process end: how a process of ours ended, in words."""

import signal


def end_of(returncode: int) -> str:
    """Return how a process ended, by the code that waiting for it gave."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"
