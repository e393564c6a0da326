"""Questions: what the console asks before a server is stopped."""

from tui.screens.dialogs import Choice, Confirm, Option

STOP = "s"
"""The answer to `leaving` that stops the server."""


def leaving() -> Choice:
    """Return the question what becomes of the console's own server; the default leaves it."""
    options = (Option("l", "Leave it running"), Option(STOP, "Stop it"))
    return Choice("The console ends. And the server that it started?", options)


def stopping(description: str) -> Confirm:
    """Return the question whether a server may be stopped that this console did not start.

    `description` names it by pid and command line.
    """
    question = (
        f"This console did not start the server: it is {description}. "
        "Stop it, and start one with the new settings in its place?"
    )
    return Confirm(question, yes="Stop it", no="Leave it")
