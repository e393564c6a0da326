"""Run the command line: `python -m appliance`.

`python -m` puts the current folder first on the path of imports, and an empty or relative entry of
`PYTHONPATH` does the same: a `random.py` that lies there would be run. Such entries are dropped
before anything else is imported, unless the package itself lies in that folder.
"""

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib would be imported from the path


def _is_elsewhere(entry: str) -> bool:
    """Return whether an entry of the path may stay: it is not the current folder, or holds us."""
    if not os.path.isabs(entry):  # noqa: PTH117 - as above
        return not os.path.isdir(entry or ".")  # noqa: PTH112 - as above; import hooks have names
    return entry == HOME or entry != os.getcwd()  # noqa: PTH109 - as above


sys.path[:] = [entry for entry in sys.path if _is_elsewhere(entry)]

from appliance.cli.main import main  # noqa: E402 - after the path is safe

if __name__ == "__main__":
    main()
