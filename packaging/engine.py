"""Engine: put the compiled engine into the environment of the interpreter that runs this."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from appliance.native.build import BuildFailed, install


def main() -> None:
    """Install it, from the cache or by compiling."""

    def say(text: str) -> None:
        print(f"gigarouter: {text}", file=sys.stderr, flush=True)

    try:
        install(say, environment=os.environ)
    except BuildFailed as failure:
        say(f"the engine did not compile with our kernels:\n{failure}")
        sys.exit(1)


if __name__ == "__main__":
    main()
