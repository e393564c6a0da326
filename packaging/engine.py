"""Engine: put the compiled engine into the environment of the interpreter that runs this."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from appliance.native.build import install
from appliance.native.pip import BuildFailed


def main() -> None:
    """Install it, from the cache or by compiling; without our kernels where they do not compile."""

    def say(text: str) -> None:
        print(f"gigarouter: {text}", file=sys.stderr, flush=True)

    try:
        install(say, environment=os.environ)
    except BuildFailed as failure:
        say(f"the engine did not compile with our kernels:\n{failure}")
        if os.environ.get("CI"):
            sys.exit(1)
        say("compiling it without them, which is slower to run")
        arguments = f"{os.environ.get('CMAKE_ARGS', '')} -DGIGAROUTER_KERNELS=OFF".strip()
        install(say, environment={**os.environ, "CMAKE_ARGS": arguments})


if __name__ == "__main__":
    main()
