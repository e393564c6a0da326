"""Child: the process in which one model is loaded and computed.

    python -m appliance.engine.child DESCRIPTOR

Owns which of its threads give way to those that compute for callers, here and in the server. The
descriptor is that of the socket to the server; when that closes, the process ends, for nobody waits
any more.
"""

import os
import socket
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from appliance.machine import give_way

if TYPE_CHECKING:
    from appliance.engine.backend import Weights


def main() -> None:
    """Load what the server orders, and compute until it closes the socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    loaded: SimpleQueue[Weights] = SimpleQueue()
    # It begins before this thread gives way: threads inherit that, and none can take it back.
    threading.Thread(target=_compute, args=(control, loaded)).start()
    give_way()
    # Imported late: this takes longer than everything else until the first weights are read.
    from appliance.engine.child_model import load  # noqa: PLC0415 - as above

    with suppress(OSError):  # the server is gone
        weights = load(control)
        if weights is not None:
            loaded.put(weights)
            return
    os._exit(0)


def _compute(control: socket.socket, loaded: "SimpleQueue[Weights]") -> None:
    """Wait for the weights, compute, and end the process."""
    weights = loaded.get()
    from appliance.engine.child_model import compute  # noqa: PLC0415 - it is here by now

    with suppress(OSError):  # the server is gone
        compute(control, weights)
    # Threads may compute: whatever they hold is freed with the process.
    os._exit(0)


if __name__ == "__main__":
    main()
