"""Files are tried before they are computed here, once for each content and engine."""

import json
import os
import shutil
import threading
from typing import ClassVar

import pytest

from appliance.catalog import catalog, importer
from appliance.catalog.header_parser import read_header
from appliance.core.errors import InvalidModelFile, LoadFailed, TrialUnfinished
from appliance.engine import screening as module
from appliance.engine import trial_record
from appliance.engine.screening import Screening
from appliance.engine.trial import Trial
from appliance.engine.trial_report import TrialReport
from appliance.store.digests import Digests
from tests.models import write_tiny_gguf


def spec_of(path, **changes):
    """Return the entry that `models add` would write for a file, with changes."""
    entry = importer.describe(read_header(path), name="tiny", file=path.name, task=None) | changes
    price = entry.pop("price")
    body = "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
    own = path.parent / "models.toml"
    own.write_text(
        f"schema = 1\n[[model]]\n{body}\n"
        f'price = {{ unit = "{price["unit"]}", realtime = {price["realtime"]} }}\n'
    )
    return catalog.load(path.parent / "none.toml", own, path.parent).find("tiny")


class StandIn(Trial):
    """Finds what a test has set, once it is let; the name of each file it tried is noted."""

    ended = threading.Event()
    begun = threading.Event()
    found: ClassVar[list] = []
    asked: ClassVar[list] = []
    at_once = most_at_once = 0

    def run(self, *, long=False):
        del long
        kind = StandIn
        kind.asked.append(self._file)
        kind.begun.set()
        kind.at_once += 1
        kind.most_at_once = max(kind.most_at_once, kind.at_once)
        try:
            while not kind.ended.wait(0.01):
                self.require_wanted()
        finally:
            kind.at_once -= 1
        found = kind.found.pop(0) if kind.found else TrialReport()
        if isinstance(found, Exception):
            raise found
        self.report = found


@pytest.fixture
def trials(monkeypatch):
    StandIn.ended, StandIn.found, StandIn.asked = threading.Event(), [], []
    StandIn.at_once = StandIn.most_at_once = 0
    StandIn.ended.set()
    monkeypatch.setattr(module, "Trial", StandIn)
    return StandIn


@pytest.fixture
def opened(tmp_path):
    """Open screenings over one folder, as one start after another does."""
    made = []

    def opened():
        digests = Digests(tmp_path / "digests.json")
        made.append(Screening(tmp_path / "trials", digests))
        return made[-1]

    yield opened
    for each in made:
        each.close()


@pytest.fixture
def spec(tmp_path):
    return spec_of(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))


def test_a_verdict_holds_for_the_content_under_whatever_name(spec, tmp_path, trials, opened):
    trials.found = [TrialReport("it is bad")]
    for _ in range(3):
        with pytest.raises(LoadFailed, match=r"tiny\.gguf is not used: it is bad"):
            opened().require(spec)
    assert trials.asked == ["tiny.gguf"]
    [kept] = (tmp_path / "trials").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    shutil.copy(spec.path, tmp_path / "copy.gguf")
    spec.path.rename(tmp_path / "renamed.gguf")
    for name in ("renamed", "copy"):
        with pytest.raises(LoadFailed, match=rf"{name}\.gguf is not used: it is bad"):
            opened().require(spec_of(tmp_path / f"{name}.gguf"))
    assert trials.asked == ["tiny.gguf"]


def test_a_file_that_was_replaced_is_tried_again(spec, trials, opened):
    trials.found = [TrialReport("it is bad")]
    screening = opened()
    with pytest.raises(LoadFailed):
        screening.require(spec)
    assert screening.refusal(spec) == "it is bad"
    write_tiny_gguf(spec.path, seed=2)
    assert screening.refusal(spec) is None
    assert not screening.is_tried(spec)
    screening.require(spec)
    assert len(trials.asked) == 2


def test_another_engine_and_other_settings_try_again(spec, trials, opened, monkeypatch):
    trials.found = [TrialReport("it is bad")]
    with pytest.raises(LoadFailed):
        opened().require(spec)
    opened().require(spec_of(spec.path, pooling="cls"))
    assert len(trials.asked) == 2
    with pytest.raises(LoadFailed):  # the first record is still there
        opened().require(spec_of(spec.path))
    monkeypatch.setattr(trial_record, "installed_build", lambda: "0.9")
    opened().require(spec)
    assert len(trials.asked) == 3
    monkeypatch.undo()
    assert opened().known(spec) is None


def test_a_record_that_cannot_be_read_is_none(spec, tmp_path, trials, opened):
    opened().require(spec)
    [kept] = (tmp_path / "trials").iterdir()
    kept.write_text("not json")
    assert opened().known(spec) is None
    opened().require(spec)
    assert len(trials.asked) == 2


def test_a_trial_that_did_not_end_is_not_kept_and_begins_again(spec, tmp_path, trials, opened):
    trials.found = [TrialUnfinished("tiny.gguf", "it was ended by SIGKILL")]
    screening = opened()
    with pytest.raises(TrialUnfinished, match="SIGKILL; try again"):
        screening.require(spec)
    assert not (tmp_path / "trials").exists()
    assert screening.refusal(spec) is None
    screening.require(spec)
    assert len(trials.asked) == 2
    assert screening.is_tried(spec)


def test_a_disk_that_is_full_does_not_have_a_file_tried_twice(spec, tmp_path, trials, opened):
    (tmp_path / "trials").write_text("in the way")
    screening = opened()
    for _ in range(2):
        screening.require(spec)
    assert len(trials.asked) == 1


def test_a_file_that_changes_while_it_is_tried_has_no_verdict(spec, trials, opened):
    trials.ended.clear()
    screening = opened()
    run = screening.begin(spec)
    while not trials.asked:
        trials.ended.wait(0.01)
    write_tiny_gguf(spec.path, seed=2)
    trials.ended.set()
    with pytest.raises(TrialUnfinished, match="changed meanwhile"):
        run.done.result(60)
    assert screening.known(spec) is None


def test_what_is_no_model_file_is_refused_without_a_process(spec, opened, trials):
    spec.path.write_bytes(b"GGUF" + os.urandom(1000))
    with pytest.raises(InvalidModelFile):
        opened().require(spec)
    assert trials.asked == []


def test_a_file_that_the_catalogue_does_not_name_is_refused_without_a_process(spec, opened, trials):
    with pytest.raises(LoadFailed, match="not the file that the catalogue names"):
        opened().require(spec_of(spec.path, sha256="0" * 64))
    assert trials.asked == []


def test_the_starter_model_is_not_tried(tmp_path, trials, opened):
    own = catalog.load(catalog.shipped_path(), tmp_path / "none.toml", tmp_path)
    opened().require(own.find("all-minilm-l6-v2"))
    assert trials.asked == []


def test_records_of_an_older_kind_are_removed(spec, tmp_path, opened):
    old = tmp_path / "tiny.gguf.verdict.json"
    old.write_text("{}")
    opened()
    assert not old.exists()


def test_one_file_has_one_trial_and_two_at_once_are_the_most(tmp_path, trials, opened):
    specs = []
    for seed in range(4):
        (tmp_path / str(seed)).mkdir()
        specs.append(spec_of(write_tiny_gguf(tmp_path / str(seed) / "tiny.gguf", seed=seed)))
    trials.ended.clear()
    screening = opened()
    runs = [screening.begin(spec) for spec in specs * 2]
    assert len(set(map(id, runs))) == 4
    assert screening.running(specs[3]).trial.step == "waiting for its turn"
    trials.ended.set()
    for run in runs:
        run.done.result(60)
    assert trials.most_at_once <= 2
    assert screening.running(specs[3]) is None


def test_a_screening_that_is_closed_ends_its_trials_and_begins_none(spec, trials, opened):
    trials.ended.clear()
    screening, errors = opened(), []

    def require():
        try:
            screening.require(spec)
        except TrialUnfinished as error:
            errors.append(error.what)

    waiting = threading.Thread(target=require)
    waiting.start()
    while not trials.asked:
        trials.ended.wait(0.01)
    screening.close()
    waiting.join(30)
    assert errors == ["its trial was cancelled"]
    with pytest.raises(TrialUnfinished, match="stopping"):
        screening.require(spec)


def test_one_that_waits_for_a_trial_may_give_it_up_and_ends_it(spec, trials, opened):
    trials.ended.clear()
    screening, looked = opened(), []

    def wanted():
        looked.append(screening.running(spec))
        if len(looked) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        screening.require(spec, wanted)
    assert trials.at_once == 0 or looked[-1].trial._cancelled
    trials.ended.set()
    screening.require(spec)
    assert screening.known(spec).reason is None
