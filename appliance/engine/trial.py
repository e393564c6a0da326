"""Trial: one model file, tried in a process of its own.

Owns that process, and what its end means. Only what the file itself caused is held against it: a
reason that the process gives, or a crash of native code. A signal from outside, a full memory, a
missing library or the end of the time are none.
"""

import os
import selectors
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import msgspec

from appliance.catalog.headers import header_of
from appliance.catalog.spec import ModelSpec
from appliance.core.clock import SystemClock
from appliance.core.errors import TrialUnfinished
from appliance.core.process_end import end_of
from appliance.engine.no_memory import speaks_of_no_memory
from appliance.engine.trial_record import Length
from appliance.engine.trial_report import Message, Request, TrialReport
from appliance.settings import environment

COMMAND = (sys.executable, "-P", "-m", "appliance.engine.preflight")
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS})
"""How native code ends a process; other signals come from outside."""
HANG_S = 600.0
"""Seconds after which a trial is given up, whatever the size of the file: it hangs."""
BYTES_PER_S = 20_000_000
"""Bytes of the file for which it has one more second."""
LONG_HANG_S = 24 * 3600.0
"""The same for long sequences, which somebody asked for and can cancel."""
MEMORY_FACTOR = 2
"""How many times its file's size a trial may take."""
MEMORY_BYTES = 8 << 30
"""Bytes of address space for the program itself and a short context, on top of that."""
TAIL_CHARS = 2_000
"""Of standard error, what is kept."""
READ_BYTES = 65_536
NS_PER_S = 1_000_000_000


class Trial:
    """A trial that waits, runs or has ended; any thread may look at it and cancel it."""

    def __init__(self, spec: ModelSpec) -> None:
        """Prepare to try a model's file."""
        self._spec = spec
        self._file = spec.path.name
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False
        self._is_late = False
        self.step = "waiting for its turn"
        """What it does now, in words."""
        self.report: TrialReport | None = None
        """What short sequences showed, once they have."""
        self.model_bytes = 0
        """What the model takes once it is loaded; known from its header."""
        self.lengths: list[Length] = []
        """Long sequences that were computed."""
        self.crashed_tokens: int | None = None
        """The length of the long sequence that crashed it."""
        self._trying_tokens: int | None = None
        self._unfinished: str | None = None
        self._ended = False
        self._stderr = b""

    def __repr__(self) -> str:
        """Say what it does."""
        return f"<Trial {self._file} [{self.step}]>"

    @property
    def stderr(self) -> str:
        """Return the end of what the process wrote to standard error."""
        return self._stderr.decode("utf-8", "replace")[-TAIL_CHARS:].strip()

    def cancel(self) -> None:
        """End it at once; one that waits never begins."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()

    def require_wanted(self, _progress: int = 0) -> None:
        """Refuse to go on with a trial that was cancelled.

        Raises:
            TrialUnfinished: as said.
        """
        if self._cancelled:
            raise TrialUnfinished(self._file, "its trial was cancelled")

    def run(self, *, long: bool = False) -> None:
        """Try it; `report`, `lengths` and `crashed_tokens` hold what was found.

        `long` computes sequences up to the model's longest too.

        Raises:
            TrialUnfinished: it ended for no fault of the file.
            InvalidModelFile: its header says already that it is no model file.
        """
        size = header_of(self._spec.path).file_size
        request = Request(
            # Whoever tries it knows already that it is the file that the catalogue names.
            entry=msgspec.structs.replace(self._spec.entry, sha256=None),
            path=str(self._spec.path),
            memory_bytes=0 if long else MEMORY_FACTOR * size + MEMORY_BYTES,
            long=long,
        )
        seconds = LONG_HANG_S if long else HANG_S + size / BYTES_PER_S
        process = self._begin()
        try:
            with suppress(BrokenPipeError):  # it has ended already: its end says why
                assert process.stdin is not None
                process.stdin.write(msgspec.json.encode(request) + b"\n")
                process.stdin.flush()
            self._hear(process, SystemClock().monotonic_ns() + int(seconds * NS_PER_S))
        finally:
            with self._lock:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(BrokenPipeError):
                    assert pipe is not None
                    pipe.close()
        self._judge(process.returncode, seconds)

    def _begin(self) -> subprocess.Popen[bytes]:
        with self._lock:
            self.require_wanted()
            self.step = "starting"
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment(),
                    # Ctrl-C and signals to the server's group are not meant for it.
                    start_new_session=True,
                )
            except OSError as error:
                raise TrialUnfinished(self._file, f"no process could be started: {error}") from None
            return self._process

    def _hear(self, process: subprocess.Popen[bytes], deadline_ns: int) -> None:
        """Read what the process says until it ends, or until the deadline ends it."""
        line = b""
        with selectors.DefaultSelector() as pipes:
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipes.register(pipe, selectors.EVENT_READ)
            while pipes.get_map():
                left_ns = deadline_ns - SystemClock().monotonic_ns()
                ready = pipes.select(max(0.0, left_ns / NS_PER_S))
                if not ready and not self._is_late:
                    self._is_late = True
                    process.kill()
                    deadline_ns += 60 * NS_PER_S
                    continue
                if not ready:
                    return  # somebody else holds its pipes
                for key, _ in ready:
                    content = os.read(key.fd, READ_BYTES)
                    if not content:
                        pipes.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        self._stderr = (self._stderr + content)[-4 * TAIL_CHARS :]
                    else:
                        *lines, line = (line + content)[-READ_BYTES * 2 :].split(b"\n")
                        for each in lines:
                            self._take(each)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)

    def _take(self, line: bytes) -> None:
        try:
            told = msgspec.json.decode(line, type=Message)
        except msgspec.MsgspecError:
            return  # native code that prints
        self.step = told.step or self.step
        self.report = told.report or self.report
        self._trying_tokens = told.trying_tokens or self._trying_tokens
        self._unfinished = told.unfinished or self._unfinished
        self._ended = self._ended or told.ended
        if told.length is not None:
            self.lengths.append(told.length)

    def _judge(self, returncode: int, seconds: float) -> None:
        """Hold against the file what it caused, and nothing else.

        Raises:
            TrialUnfinished: something else ended the process.
        """
        self.require_wanted()
        if self._is_late:
            raise TrialUnfinished(self._file, f"{self.step} did not end within {seconds:.0f} s")
        if self._unfinished is not None:
            raise TrialUnfinished(self._file, self._unfinished)
        lacks_memory = speaks_of_no_memory(self.stderr)
        if self.report is not None and self.report.reason is not None and lacks_memory:
            raise TrialUnfinished(self._file, f"there was no memory ({self.report.reason})")
        if self._ended:
            return
        if -returncode not in CRASHES:
            raise TrialUnfinished(
                self._file, f"{self.step} {end_of(returncode)}{self._last_line()}"
            )
        if lacks_memory:
            raise TrialUnfinished(self._file, f"there was no memory for {self.step}")
        if self.report is None:
            name = signal.Signals(-returncode).name
            self.report = TrialReport(reason=f"llama.cpp crashed at {self.step} ({name})")
        else:
            self.crashed_tokens = self._trying_tokens

    def _last_line(self) -> str:
        lines = self.stderr.splitlines()
        return f" ({lines[-1][:300]})" if lines else ""
