"""Load progress: how far a model is loaded; told on the thread that loads, read on any other."""


class LoadProgress:
    """The share of a file that is in memory, and whether anybody still wants the rest."""

    def __init__(self) -> None:
        self.fraction = 0.0
        """0 to 1."""
        self._cancelled = False

    def __repr__(self) -> str:
        """Say how far it is."""
        return f"<LoadProgress [{self.fraction:.0%}{' | cancelled' if self._cancelled else ''}]>"

    def __call__(self, fraction: float) -> bool:
        """Take how far the load is; return False to end it."""
        self.fraction = fraction
        return not self._cancelled

    def cancel(self) -> None:
        """End the load at its next step; one that has ended stays."""
        self._cancelled = True
