"""A file is tried in a process of its own: good ones pass, bad ones say why, crashes stay there.

What is no fault of the file is not held against it.
"""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from appliance.core.errors import TrialUnfinished
from appliance.engine import trial as module
from appliance.engine.trial import Trial
from tests import decoders, encoders
from tests.decoders import write_decoder
from tests.models import write_tiny_gguf
from tests.server import ROOT
from tests.unit.engine.test_screening import spec_of


def tried(spec, **options):
    trial = Trial(spec)
    trial.run(**options)
    return trial


def verdict(spec):
    report = tried(spec).report
    return report.reason, report.notes


@pytest.fixture
def spec(tmp_path):
    return spec_of(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))


@pytest.fixture
def hook(tmp_path, monkeypatch):
    """Run lines in the child before it imports what computes."""

    def hooked(*lines):
        path = tmp_path / "site" / "sitecustomize.py"
        path.parent.mkdir()
        path.write_text(
            "import os, sys, time\n"
            "class Hook:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'appliance.engine.llama.weights':\n"
            + "".join(f"            {line}\n" for line in lines)
            + "sys.meta_path.insert(0, Hook())\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(path.parent))

    return hooked


@pytest.fixture
def stand_in(monkeypatch):
    """Run a script in the place of the child."""

    def standing(*lines):
        script = "import os, signal, sys, time\nsys.stdin.readline()\n" + "\n".join(lines)
        monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", script))

    return standing


def said(text):
    return f"print({text!r}, flush=True)"


# -- what the file is to blame for --------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_tiny_gguf(path, seed=1),
        lambda path: write_tiny_gguf(path, seed=1, labels=1),
        lambda path: encoders.write_xlmr(path, encoders.xlmr_weights(seed=1)),
        lambda path: encoders.write_modern(path, encoders.modern_weights(seed=1)),
        lambda path: write_decoder(path, decoders.weights(seed=1)),
    ],
    ids=["embedder", "bert", "xlmr", "modern", "decoder"],
)
def test_a_good_file_of_each_kind_passes(tmp_path, write):
    reason, _ = verdict(spec_of(write(tmp_path / "tiny.gguf")))
    assert reason is None


def test_a_good_file_with_a_large_vocabulary_and_a_long_context_passes(tmp_path):
    path = encoders.write_wide_bert(tmp_path / "wide.gguf", tokens=250_002, context=8192, seed=1)
    assert verdict(spec_of(path))[0] is None


def test_a_reranker_whose_head_is_nothing_but_zeros_is_refused(tmp_path):
    weights = encoders.xlmr_weights(seed=1)
    weights["cls.output.weight"] = np.zeros_like(weights["cls.output.weight"])
    spec = spec_of(encoders.write_xlmr(tmp_path / "tiny.gguf", weights))
    assert verdict(spec) == (
        "it scores everything alike: its head is missing or not what it says",
        [],
    )


def test_an_embedder_that_gives_every_text_the_same_vector_is_refused(tmp_path):
    weights = decoders.weights(seed=1)
    weights["token_embd"] = np.ones_like(weights["token_embd"])
    spec = spec_of(write_decoder(tmp_path / "tiny.gguf", weights))
    assert verdict(spec) == ("every text gets the same vector", [])


def test_an_embedder_of_numbers_that_are_none_is_refused(tmp_path):
    weights = decoders.weights(seed=1)
    weights["output_norm"] = np.full_like(weights["output_norm"], np.nan)
    reason, _ = verdict(spec_of(write_decoder(tmp_path / "tiny.gguf", weights)))
    assert "not finite" in reason


def test_a_file_that_makes_the_library_abort_takes_nobody_with_it(spec, hook):
    hook("os.write(2, b'GGML_ASSERT(rows > 0) failed\\n')", "os.abort()")
    found = tried(spec)
    assert found.report.reason == "llama.cpp crashed at loading it (SIGABRT)"
    assert "GGML_ASSERT(rows > 0) failed" in found.stderr


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGBUS"])
def test_a_crash_of_native_code_is_held_against_the_file(spec, stand_in, name):
    stand_in(
        said('{"step":"loading it"}'),
        "sys.stderr.write('a line of its own')",
        "sys.stderr.flush()",
        f"signal.signal(signal.{name}, signal.SIG_DFL)",
        f"os.kill(os.getpid(), signal.{name})",
    )
    found = tried(spec)
    assert found.report.reason == f"llama.cpp crashed at loading it ({name})"
    assert found.stderr.startswith("a line of its own")


# -- what it is not -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU"])
def test_a_signal_from_outside_is_no_verdict(spec, stand_in, name):
    stand_in(
        said('{"step":"loading it"}'),
        f"signal.{'signal(signal.' + name + ', signal.SIG_DFL)' if name != 'SIGKILL' else name}",
        f"os.kill(os.getpid(), signal.{name})",
    )
    with pytest.raises(TrialUnfinished, match=rf"loading it was ended by {name}.*; try again"):
        tried(spec)


def test_ctrl_c_and_a_signal_to_the_servers_group_do_not_reach_it(spec, stand_in):
    stand_in(said('{"report":{}}'), "print(os.getsid(0) == os.getpid(), file=sys.stderr)")
    found = Trial(spec)
    with pytest.raises(TrialUnfinished):  # it never says that it has ended
        found.run()
    assert found.stderr == "True"


def test_a_file_that_takes_for_ever_is_not_condemned(spec, hook, monkeypatch):
    hook("time.sleep(60)")
    monkeypatch.setattr(module, "HANG_S", 1.0)
    with pytest.raises(TrialUnfinished, match="did not end within 1 s; try again"):
        tried(spec)


def test_a_trial_without_memory_is_no_verdict(tmp_path, monkeypatch):
    # Larger than what a process has free of its own before the limit holds.
    path = encoders.write_wide_bert(tmp_path / "wide.gguf", tokens=200_000, context=64, seed=1)
    monkeypatch.setattr(module, "MEMORY_BYTES", 1_000_000)
    with pytest.raises(TrialUnfinished):
        tried(spec_of(path))


@pytest.mark.parametrize(
    "complaint",
    [
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1",
        "CUDA error: out of memory",
        "memory allocation of 8650768 bytes failed",
    ],
)
def test_an_abort_for_want_of_memory_is_no_verdict(spec, stand_in, complaint):
    stand_in(f"sys.stderr.write({complaint!r})", "sys.stderr.flush()", "os.abort()")
    with pytest.raises(TrialUnfinished, match="there was no memory"):
        tried(spec)


@pytest.mark.parametrize(
    "line", ["raise ImportError('libgomp.so.1: cannot open')", "raise RuntimeError('libllama')"]
)
def test_a_library_that_is_missing_is_no_verdict(spec, hook, line):
    hook(line)
    with pytest.raises(TrialUnfinished, match=r"libgomp|libllama"):
        tried(spec)


def test_modules_of_the_current_folder_are_not_run_by_a_trial(spec, tmp_path, monkeypatch):
    folder = tmp_path / "users"
    for name in ("json", "numpy", "signal", "msgspec", "appliance", "sitecustomize"):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text("raise SystemExit('the user\\'s own')")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", ":.")
    assert verdict(spec)[0] is None


def test_a_trial_that_cannot_be_started_is_no_verdict(spec, monkeypatch):
    monkeypatch.setattr(module, "COMMAND", ("/no/such/program",))
    with pytest.raises(TrialUnfinished, match="no process could be started"):
        tried(spec)


# -- its end ------------------------------------------------------------------------------------


def alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return stat[0] != "Z"


def until(condition):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_cancelled_trial_ends_at_once(spec, tmp_path, hook):
    mark = tmp_path / "pid"
    hook(f"open({str(mark)!r}, 'w').write(str(os.getpid()))", "time.sleep(600)")
    found, errors = Trial(spec), []

    def run():
        try:
            found.run()
        except TrialUnfinished as error:
            errors.append(error.message)

    thread = threading.Thread(target=run)
    thread.start()
    pid = until(lambda: mark.exists() and mark.read_text())
    until(lambda: found.step == "loading it")  # it says so first; that is heard a moment later
    found.cancel()
    thread.join(30)
    assert errors == ["tiny.gguf could not be tried: its trial was cancelled; try again."]
    assert not alive(pid)
    with pytest.raises(TrialUnfinished, match="cancelled"):
        found.run()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="threads are counted in /proc")
def test_a_trial_ends_with_the_process_that_began_it(spec, tmp_path, hook):
    mark = tmp_path / "pid"
    hook(f"open({str(mark)!r}, 'w').write(str(os.getpid()))", "time.sleep(600)")
    script = (
        "from pathlib import Path\n"
        "from appliance.engine.trial import Trial\n"
        "from tests.unit.engine.test_screening import spec_of\n"
        f"Trial(spec_of(Path({str(spec.path)!r}))).run()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        pid = until(lambda: mark.exists() and mark.read_text())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
        until(lambda: not alive(pid))
    finally:
        parent.kill()


# -- long sequences -----------------------------------------------------------------------------


def test_long_sequences_are_tried_up_to_the_models_longest(tmp_path):
    shape = encoders.Shape(len(encoders.UNIGRAM), width=16, inner=16, blocks=1, context=700)
    path = tmp_path / "long.gguf"
    spec = spec_of(encoders.write_xlmr(path, encoders.xlmr_weights(shape, seed=1), shape))
    found = tried(spec, long=True)
    assert found.report.reason is None
    longest = spec.entry.max_input_tokens
    assert [length.tokens for length in found.lengths] == [128, 256, 512, longest]
    assert all(length.seconds > 0 for length in found.lengths)
    peaks = [length.peak_bytes for length in found.lengths]
    assert peaks == sorted(peaks)
    assert peaks[0] > 10_000_000


def test_a_long_sequence_that_crashes_says_its_length_and_condemns_no_shorter_one(spec, stand_in):
    stand_in(
        said('{"report":{}}'),
        said('{"length":{"tokens":2048,"seconds":1.5,"peak_bytes":1}}'),
        said('{"step":"computing 4,096 tokens","trying_tokens":4096}'),
        "os.kill(os.getpid(), signal.SIGSEGV)",
    )
    found = tried(spec, long=True)
    assert found.report.reason is None
    assert found.crashed_tokens == 4096
    assert [length.tokens for length in found.lengths] == [2048]


def test_what_native_code_prints_is_not_taken_for_a_report(spec, stand_in):
    stand_in(
        "print('x' * 300_000)",
        said("[1]"),
        said('{"report":{"notes":["so"]}}'),
        said('{"ended":true}'),
    )
    assert verdict(spec) == (None, ["so"])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="threads are counted in /proc")
def test_a_trial_leaves_no_pipe_open(spec):
    before = len(list(Path("/proc/self/fd").iterdir()))
    tried(spec)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
