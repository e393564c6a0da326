"""Isolated weights: a model in a process of its own, used as if it were in this one.

Owns what its death means: `EngineDied` for whatever is being computed, and nothing for any other
model. A batch that takes longer than a call may is a death too.
"""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from appliance.core.errors import EngineDied, InferenceFailed, LoadFailed
from appliance.engine.backend import (
    Backend,
    EngineLimits,
    ModelFacts,
    require_computable,
)
from appliance.engine.child_channel import (
    Exchange,
    Opening,
    Ready,
    limit_silence,
    open_memory,
    receive,
    receive_answer,
    send,
    send_batch,
)
from appliance.engine.child_process import ChildProcess
from appliance.engine.load_progress import LoadProgress
from appliance.engine.vectors import Matrix
from appliance.engine.weights_order import WeightsOrder
from appliance.sequences.sequence import TokenSequence, row_starts

LOOK_AGAIN_S = 0.1
"""How often one that waits for a load looks whether it is still wanted."""
SILENCE_S = 600.0
"""Seconds without a sign of progress, after which a load is given up."""
CLOSE_S = 10.0
WIDTH_MAX = 1_000_000


class IsolatedBackend:
    """A context of the process; used by one thread."""

    def __init__(
        self,
        child: ChildProcess,
        channel: socket.socket,
        exchange: Exchange,
        *,
        limits: EngineLimits,
        facts: ModelFacts,
        batch_seconds_max: float,
    ) -> None:
        """Take over a channel, which this closes."""
        self.limits = limits
        self._child = child
        self._channel = channel
        self._exchange = exchange
        self._facts = facts
        self._batch_seconds_max = batch_seconds_max
        limit_silence(channel, batch_seconds_max)

    def compute(self, sequences: Sequence[TokenSequence], *, threads: int) -> Matrix:
        """Return the rows of each sequence, in order, unnormalised, float32[n_rows, facts.width].

        Raises:
            InferenceFailed: the library refused this batch, or its numbers are not finite.
            EngineDied: the process died or hung.
        """
        tokens = require_computable(sequences, self.limits, self._facts)
        count = len(sequences)
        self._exchange.put(sequences, tokens)
        try:
            send_batch(self._channel, sequences=count, tokens=len(tokens), threads=threads)
            answer = receive_answer(self._channel)
        except BlockingIOError:
            self._child.kill()
            self._child.died()
            raise EngineDied(
                f"its process was ended, because a batch took longer than "
                f"{self._batch_seconds_max:g} s"
            ) from None
        except OSError:
            raise self._child.died() from None
        if answer.fatal is not None:
            raise EngineDied(answer.fatal)
        if answer.refused is not None:
            raise InferenceFailed(answer.refused)
        rows = self._exchange.rows(row_starts(sequences)[-1])
        if not np.isfinite(rows).all():
            raise InferenceFailed("the model gave numbers that are not finite")
        return rows

    def close(self) -> None:
        """Free the context; returns when that is done."""
        with self._channel:
            try:
                self._channel.shutdown(socket.SHUT_WR)
                limit_silence(self._channel, CLOSE_S)
                self._channel.recv(1)
            except OSError:
                pass  # the process is gone, or hangs: its end frees everything


class IsolatedWeights:
    """One loaded model in a process of its own."""

    def __init__(
        self,
        order: WeightsOrder,
        *,
        name: str,
        batch_seconds_max: float,
        progress: LoadProgress | None = None,
    ) -> None:
        """Start the process and let it load; `name` stands in the log and in errors.

        Raises:
            LoadFailed: the file cannot be used, there is no memory for it, the process died over
                it, or `progress` ended the load.
        """
        self.limits = order.limits
        self._name = name
        self._batch_seconds_max = batch_seconds_max
        self._sending = threading.Lock()
        self.child = ChildProcess(name)
        try:
            self.facts = self._load(order, progress or LoadProgress())
        except BaseException:
            self.child.kill()
            self.child.close()
            raise

    def notify(self, on_loss: Callable[[EngineDied], None]) -> None:
        """Call a function, on any thread, when the process ends by itself."""
        self.child.notify(on_loss)

    def open_backend(self, limits: EngineLimits, *, flash_attention: bool | None) -> Backend:
        """Return a context that takes calls within `limits`.

        Raises:
            LoadFailed: there is no memory for it, or the process died.
        """
        ours, theirs = socket.socketpair()
        limit_silence(ours, self._batch_seconds_max)
        memory = open_memory(limits, self.facts.width)
        try:
            exchange = Exchange(memory, limits, self.facts.width)
            with theirs, self._sending:
                opening = Opening(limits, flash_attention)
                send(self.child.control, opening, [theirs.fileno(), memory])
            refused = receive_answer(ours).refused
        except OSError:
            refused = self.child.died().message
        finally:
            os.close(memory)
        if refused is not None:
            ours.close()
            raise LoadFailed(refused)
        return IsolatedBackend(
            self.child,
            ours,
            exchange,
            limits=limits,
            facts=self.facts,
            batch_seconds_max=self._batch_seconds_max,
        )

    def close(self) -> None:
        """End the process; every backend is closed by then."""
        self.child.close()

    def _load(self, order: WeightsOrder, progress: LoadProgress) -> ModelFacts:
        control = self.child.control
        control.settimeout(LOOK_AGAIN_S)
        silent_s = 0.0
        try:
            send(control, order)
            while True:
                if not progress(progress.fraction):
                    raise LoadFailed(f"{self._name} is not wanted any more.")
                try:
                    ready = cast("Ready", receive(control, Ready)[0])
                except TimeoutError:
                    silent_s += LOOK_AGAIN_S
                    if silent_s > SILENCE_S:
                        raise LoadFailed(f"{self._name}: its process hangs.") from None
                    continue
                silent_s = 0.0
                if ready.progress is not None:
                    progress(ready.progress)
                if ready.refused is not None:
                    raise LoadFailed(self._because(ready.refused))
                if ready.facts is not None:
                    break
        except OSError:
            raise LoadFailed(self._because(f"{self._name}: {self.child.died().message}")) from None
        control.settimeout(self._batch_seconds_max)
        if not 0 < ready.facts.width <= WIDTH_MAX or ready.facts.vocabulary <= 0:
            raise LoadFailed(f"{self._name} has no output that could be used.")
        return ready.facts

    def _because(self, reason: str) -> str:
        """Return a reason, with the want of memory if that was behind it."""
        self.child.died()  # it ends after a refusal, and has written why
        if self.child.lacked_memory and "memory" not in reason:
            return f"there is no memory for it ({reason})"
        return reason
