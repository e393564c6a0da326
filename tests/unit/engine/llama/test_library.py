"""What llama.cpp keeps in one place for the whole process is asked for by one thread."""

import subprocess
import sys

CODE = """
import threading
from concurrent.futures import ThreadPoolExecutor

import llama_cpp

asked, lock = [], threading.Lock()
native = llama_cpp.llama_print_system_info


def watched():
    # Two threads that are in it at the same time free one string twice.
    assert lock.acquire(blocking=False), "two threads ask at the same time"
    asked.append(threading.current_thread().name)
    threading.Event().wait(0.05)
    told = native()
    lock.release()
    return told


llama_cpp.llama_print_system_info = watched
from appliance.engine.llama import library
from appliance.engine.llama.native_threads import NativeThreads

gate = threading.Barrier(6)


def ask(what):
    gate.wait(30)
    return what()


with ThreadPoolExecutor(6) as threads:
    asks = [library.build, library.facts, NativeThreads] * 2
    answers = [each.result(60) for each in [threads.submit(ask, what) for what in asks]]
assert answers[0] == answers[3]
assert answers[1]["features"] in answers[0]
print(len(asked))
"""


def test_what_the_build_can_do_is_asked_once_however_many_threads_want_it():
    end = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (end.returncode, end.stdout.strip()) == (0, "1"), end.stderr
