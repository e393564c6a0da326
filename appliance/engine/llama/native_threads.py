"""NativeThreads: the calls with which ggml places its threads.

Owns the part of ggml's thread pools that the binding leaves out. In a build with OpenMP a pool has
no threads: it is a table of cores, and at the beginning of every computation each thread of the
OpenMP team moves itself to the core in its row. So a thread that OpenMP made just now is placed as
well as one that is old, however the size of the team has changed in between.
"""

import ctypes
import os
from contextlib import suppress

from appliance import machine
from appliance.engine.llama.backends import declare, processor
from appliance.engine.llama.library import features, quick

CORES_MAX = 512
"""`GGML_MAX_N_THREADS`: the length of a pool's mask of cores."""
POLL_DEFAULT = 50
"""What the library sets `poll` to: a structure of another shape would not show it there."""


class _Parameters(ctypes.Structure):
    """`struct ggml_threadpool_params`."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * CORES_MAX),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
        ("spare", ctypes.c_uint8 * 256),  # room for fields that a later version may add
    )


class NativeThreads:
    """Places the threads of contexts; each context belongs to the calling thread."""

    def __init__(self) -> None:
        """Find the library's functions; `can_place` says whether all of them are as expected."""
        self.can_place = (
            0 <= max(machine.allowed_cores(), default=-1) < CORES_MAX
            and "OPENMP = 1" in features()
            and declare(quick, _SIGNATURES)
            and declare(processor(), _POOLS)
            and _has_expected_shape()
        )

    def allowed(self) -> frozenset[int]:
        """Return the cores that the calling thread may run on."""
        return machine.allowed_cores()

    def allow(self, cores: frozenset[int]) -> None:
        """Let the calling thread run on these cores."""
        # The cores of a container may have changed: the kernel then chose others by itself.
        with suppress(OSError):
            os.sched_setaffinity(0, cores)

    def set_count(self, context: int, threads: int) -> None:
        """Compute the context's next calls with so many threads.

        A pool that is attached must have rows for as many: the library would read past its end.
        """
        assert threads > 0
        quick.llama_set_n_threads(context, threads, threads)

    def open_pool(self, cores: frozenset[int]) -> int:
        """Return a pool that places one thread on each of the cores."""
        assert cores
        assert all(0 <= core < CORES_MAX for core in cores)
        parameters = _Parameters()
        quick.ggml_threadpool_params_init(ctypes.byref(parameters), len(cores))
        parameters.strict_cpu = True
        for core in cores:
            parameters.cpumask[core] = True
        return int(_pools().ggml_threadpool_new(ctypes.byref(parameters)))

    def attach(self, context: int, pool: int | None) -> None:
        """Place the threads of the context's next calls by a pool, or leave them to the kernel."""
        if pool is None:
            quick.llama_detach_threadpool(context)
        else:
            quick.llama_attach_threadpool(context, pool, pool)

    def free_pool(self, pool: int) -> None:
        """Free a pool that no context computes with."""
        _pools().ggml_threadpool_free(pool)


_SIGNATURES = {
    "ggml_threadpool_params_init": (None, (ctypes.c_void_p, ctypes.c_int)),
    "llama_attach_threadpool": (None, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)),
    "llama_detach_threadpool": (None, (ctypes.c_void_p,)),
}
_POOLS = {
    "ggml_threadpool_new": (ctypes.c_void_p, (ctypes.c_void_p,)),
    "ggml_threadpool_free": (None, (ctypes.c_void_p,)),
}
"""Of the library that computes on the processor, which may be one that ggml has loaded."""


def _pools() -> ctypes.PyDLL:
    library = processor()
    assert library is not None
    return library


def _has_expected_shape() -> bool:
    """Say whether the library fills the structure as it is declared here."""
    parameters = _Parameters()
    quick.ggml_threadpool_params_init(ctypes.byref(parameters), 3)
    fields = (parameters.n_threads, parameters.prio, parameters.poll)
    flags = (parameters.strict_cpu, parameters.paused, any(parameters.cpumask))
    return fields == (3, 0, POLL_DEFAULT) and not any(flags)
