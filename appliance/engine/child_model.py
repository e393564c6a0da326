"""Child model: what a model's own process does: load it, and compute for the server's workers.

Owns the model's weights, a thread and a context for each of the server's workers, and nothing else:
no socket, no database, no file of the server's is open here. When the socket to the server closes,
the process ends, for nobody waits any more.
"""

import faulthandler
import logging
import os
import resource
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import cast

from appliance.core.errors import ApplianceError, InferenceFailed, LoadFailed
from appliance.engine.backend import Backend, Weights
from appliance.engine.child_channel import (
    Answer,
    Exchange,
    Opening,
    Ready,
    receive,
    receive_batch,
    send,
)
from appliance.engine.devices import native_facts
from appliance.engine.load_progress import LoadProgress
from appliance.engine.weights_order import WeightsOrder, open_here
from appliance.machine import die_with_parent

OOM_SCORE = "500"
"""Where memory runs out, this process goes before the server."""
STEP = 0.01
"""The share of the weights after which the server is told again."""


def load(control: socket.socket) -> Weights | None:
    """Load what the server orders; None: it was told why that is not possible.

    Raises:
        OSError: the server is gone.
    """
    _prepare()
    order = cast("WeightsOrder", receive(control, WeightsOrder)[0])
    weights = _load(control, order)
    if weights is not None:
        send(control, Ready(facts=weights.facts))
    return weights


def _prepare() -> None:
    """End with the server, leave no image of the memory, and say where native code crashed."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s"
    )
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")


class _ToldProgress(LoadProgress):
    """Tells the server how far the load is."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__()
        self._control = control
        self._told = -1.0

    def __call__(self, fraction: float) -> bool:
        """Take how far the load is; a server that is gone ends it."""
        if fraction - self._told >= STEP or fraction >= 1:
            self._told = fraction
            try:
                send(self._control, Ready(progress=fraction))
            except OSError:
                self.cancel()
        return super().__call__(fraction)


def _load(control: socket.socket, order: WeightsOrder) -> Weights | None:
    if order.memory_bytes:
        native_facts()  # the libraries are there before: they are no fault of the file
        resource.setrlimit(resource.RLIMIT_AS, (order.memory_bytes, order.memory_bytes))
    try:
        return open_here(order, _ToldProgress(control))
    except ApplianceError as error:
        send(control, Ready(refused=error.message))
    except MemoryError:
        send(control, Ready(refused="there is no memory for it"))
    except (ImportError, OSError, RuntimeError) as error:
        send(control, Ready(refused=f"{type(error).__name__}: {error}"))
    return None


def compute(control: socket.socket, weights: Weights) -> None:
    """Start a thread for each context that the server wants, until it wants none any more.

    Raises:
        OSError: the server is gone.
    """
    while True:
        message, (channel, memory) = receive(control, Opening, descriptors=2)
        opening = cast("Opening", message)
        exchange = Exchange(memory, opening.limits, weights.facts.width)
        os.close(memory)
        threading.Thread(
            target=_serve,
            args=(socket.socket(fileno=channel), exchange, weights, opening),
            daemon=True,
        ).start()


def _serve(channel: socket.socket, exchange: Exchange, weights: Weights, opening: Opening) -> None:
    """Open a context and compute the batches of one worker."""
    with channel:
        try:
            backend = weights.open_backend(opening.limits, flash_attention=opening.flash_attention)
        except (LoadFailed, MemoryError) as error:
            send(channel, Answer(refused=str(error) or "there is no memory for it"))
            return
        try:
            send(channel, Answer())
            _compute_all(channel, exchange, backend)
        except OSError:
            pass  # the server is gone, or its worker is
        finally:
            backend.close()


def _compute_all(channel: socket.socket, exchange: Exchange, backend: Backend) -> None:
    while (batch := receive_batch(channel)) is not None:
        count, _, threads = batch
        try:
            exchange.put_rows(backend.compute(exchange.sequences(count), threads=threads))
        except InferenceFailed as error:
            send(channel, Answer(refused=error.reason))
        except Exception as error:
            logging.getLogger("gigarouter.child").exception("a batch ended the context")
            send(channel, Answer(fatal=repr(error)))
            return
        else:
            send(channel, Answer())
