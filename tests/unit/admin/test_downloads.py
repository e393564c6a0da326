"""Pulls through the operator's API, from a hub that stands in: what gets a model's name, and when."""

import asyncio
import errno
import os
import re
import sys
import time

import pytest
import tomlkit

from appliance.admin.additions import AdditionCancelled
from appliance.admin.downloads import DownloadAdmin
from appliance.admin.models import ModelAdmin, Models
from appliance.catalog.user_catalog import find
from appliance.core.clock import SystemClock
from appliance.core.errors import (
    DownloadFailed,
    InvalidCatalog,
    InvalidRequest,
    LoadFailed,
    TrialUnfinished,
)
from appliance.engine import trial
from appliance.engine.screening import Screening, trusted
from appliance.hub.downloads import Downloads
from appliance.hub.remote import Hub
from appliance.settings import EngineSettings, HubSettings
from appliance.store.datadir import DataDir
from appliance.wire.downloads import HubModelOrder
from appliance.wire.models import AddModelOrder, AliasOrder, ModelOrder, PriceOrder
from tests.decoders import weights, write_decoder
from tests.hub import standing_in
from tests.models import write_tiny_bert_folder, write_tiny_gguf

REPO, FILE, FOLDER = "owner/tiny-GGUF", "tiny-Q8_0.gguf", "owner/tiny-folder"
SECONDS = 30.0


class Place:
    """A data directory, a hub, and the operator's verbs for downloads."""

    def __init__(self, path, hub, endpoint):
        self.hub = hub
        self.directory = DataDir(path)
        self.directory.create()
        self.tried = []
        self.screen = trusted
        self.remote = Hub(HubSettings(endpoint=endpoint))
        self.models = Models.read(self.directory)
        self.downloads = Downloads(SystemClock())
        self.model_admin = ModelAdmin(self.models)
        self.with_screen(self.screened)

    def with_screen(self, screen):
        self.admin = DownloadAdmin(
            self.models, self.model_admin, self.remote, self.downloads, screen
        )

    def screened(self, spec, _wanted):
        self.tried.append(spec)
        self.screen(spec)

    def add(self, name, repo=REPO, file=FILE, **order):
        return asyncio.run(self.admin.add(HubModelOrder(repo=repo, file=file, id=name, **order)))

    def replace(self, name, repo=REPO, file=FILE):
        """Replace a model that is here, and return the download that did it once it has ended."""
        return ended(self.downloads.get(self.add(name, repo, file, replace=True).download))

    def price(self, name, realtime):
        asyncio.run(self.model_admin.price(PriceOrder(id=name, realtime=realtime)))

    def alias(self, name, *aliases):
        asyncio.run(self.model_admin.alias(AliasOrder(id=name, aliases=list(aliases))))

    def begin(self, name):
        return self.downloads.get(asyncio.run(self.admin.pull(ModelOrder(id=name))).id)

    def pull(self, name):
        return ended(self.begin(name))

    def path(self, name):
        return self.directory.models / f"{name}.gguf"

    @property
    def content(self):
        return self.hub.files[REPO, FILE]

    def left(self):
        """Return what is in the folder of models, but for the models and what is known of them."""
        return sorted(
            path.name
            for path in self.directory.models.iterdir()
            if path.suffix not in {".gguf", ".json"}
        )


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ended(download):
    until(lambda: download.is_over)
    return download


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.hub.fetch.PAUSES_S", (0.01,) * 5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with standing_in() as (hub, endpoint):
        gguf = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1).read_bytes()
        # The reader asks that tensors end within the file; what stands behind them is free.
        hub.put(REPO, FILE, gguf + os.urandom(2_000_000))
        folder = tmp_path / "tiny-folder"
        write_tiny_bert_folder(folder, seed=2, labels=1)
        for path in folder.iterdir():
            hub.put(FOLDER, path.name, path.read_bytes(), large=path.suffix == ".safetensors")
        found = Place(tmp_path / "data", hub, endpoint)
        yield found
        found.downloads.close()


# -- one download for each content -----------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_entries_of_one_file_that_are_pulled_at_once_each_get_it_and_it_is_fetched_once(
    place, count
):
    names = [f"tiny-{number}" for number in range(count)]
    for name in names:
        place.add(name)
    place.hub.faults.pause_s, place.hub.sent = 0.005, 0
    downloads = [place.begin(name) for name in names]
    until(lambda: all(100_000 < each.bytes_have < len(place.content) for each in downloads))
    assert [ended(each).error for each in downloads] == [None] * count
    assert [place.path(name).read_bytes() == place.content for name in names] == [True] * count
    assert [each.bytes_have for each in downloads] == [len(place.content)] * count
    assert place.hub.sent == len(place.content)
    assert place.left() == []
    assert len(place.tried) == count


def test_entries_that_do_not_say_their_digest_share_one_download_too(place):
    names = ["tiny-0", "tiny-1", "tiny-2"]
    for name in names:
        place.add(name)
    own = place.directory.catalog
    own.write_text(
        re.sub(r', bytes = \d+, sha256 = "[0-9a-f]+"', "", own.read_text()).replace(
            "[[model]]", "[[model]]\nverified = false"
        )
    )
    place.models.reread()
    assert {spec.entry.sha256 for spec in place.models.catalog if spec.id in names} == {None}
    place.hub.faults.pause_s, place.hub.sent = 0.005, 0
    downloads = [place.begin(name) for name in names]
    assert [ended(each).error for each in downloads] == [None] * 3
    assert place.hub.sent == len(place.content)
    digest = place.hub.digest(REPO, FILE)
    assert {place.models.catalog.find(name).entry.sha256 for name in names} == {digest}


def test_when_the_one_that_fetches_is_cancelled_the_one_that_waits_goes_on(place):
    place.add("first")
    place.add("second")
    place.hub.faults.pause_s, place.hub.sent = 0.01, 0
    first, second = place.begin("first"), place.begin("second")
    until(lambda: second.bytes_have > 200_000)
    assert second.state == "fetching"
    asyncio.run(place.admin.cancel(first.id))
    assert ended(second).state == "done"
    assert first.state == "cancelled"
    assert place.path("second").read_bytes() == place.content
    assert not place.path("first").exists()
    assert place.hub.sent < len(place.content) + 4 * 65_536
    assert place.left() == []


def test_one_that_waits_is_cancelled_by_itself(place):
    place.add("first")
    place.add("second")
    place.hub.faults.pause_s = 0.01
    first, second = place.begin("first"), place.begin("second")
    until(lambda: second.bytes_have > 200_000)
    asyncio.run(place.admin.cancel(second.id))
    until(lambda: second.is_over)
    assert (second.state, first.is_over) == ("cancelled", False)
    assert ended(first).state == "done"
    assert place.left() == []


def test_what_another_model_has_is_not_fetched_again(place):
    place.add("first")
    place.add("second")
    assert place.pull("first").error is None
    sent = place.hub.sent
    assert place.pull("second").error is None
    assert place.hub.sent == sent
    assert place.path("second").read_bytes() == place.content
    # Each has a name of its own: what becomes of the other is nothing to it.
    place.path("first").unlink()
    assert place.path("second").read_bytes() == place.content


def test_where_files_cannot_be_linked_another_models_file_is_copied_if_there_is_room(
    place, monkeypatch
):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    place.add("first")
    place.add("second")
    assert place.pull("first").error is None
    monkeypatch.setattr(os, "link", refuse)
    sent = place.hub.sent
    monkeypatch.setattr("appliance.hub.fetch.KEPT_FREE_BYTES", 1 << 60)
    assert "bytes free" in place.pull("second").error
    monkeypatch.setattr("appliance.hub.fetch.KEPT_FREE_BYTES", 0)
    assert place.pull("second").error is None
    assert place.hub.sent == sent
    assert place.path("second").stat().st_ino != place.path("first").stat().st_ino
    assert place.left() == []


def test_another_models_file_that_was_damaged_is_not_taken(place):
    place.add("first")
    place.add("second")
    assert place.pull("first").error is None
    with place.path("first").open("r+b") as file:
        file.seek(5_000)
        file.write(b"damaged")
    assert place.pull("second").error is None
    assert place.path("second").read_bytes() == place.content


def test_two_entries_of_one_folder_are_converted_each_to_a_file_of_its_own(place):
    for name in ("first", "second"):
        place.add(name, FOLDER, None)
    place.hub.faults.pause_s = 0.05
    downloads = [place.begin(name) for name in ("first", "second")]
    assert [ended(each).error for each in downloads] == [None, None]
    assert place.path("first").stat().st_size > 10_000
    assert place.path("second").stat().st_size > 10_000
    weights = [each for each in place.hub.asked() if each[1].endswith("model.safetensors")]
    assert len(weights) == 1
    assert place.left() == []


def test_a_folder_whose_conversion_is_refused_leaves_nothing(place):
    def refuse(spec):
        raise LoadFailed(f"{spec.path.name} is not used: it crashed")

    place.add("one", FOLDER, None)
    place.screen = refuse
    assert place.pull("one").error == "one.gguf is not used: it crashed"
    assert place.left() == []
    assert not place.path("one").exists()


# -- the trial ------------------------------------------------------------------------------------


def test_a_file_is_tried_before_it_gets_its_name(place):
    def screen(spec):
        assert spec.path.read_bytes() == place.content
        assert not place.path("one").exists()
        states.append(download.state)

    states = []
    place.add("one")
    place.screen = screen
    download = place.begin("one")
    assert ended(download).error is None
    assert states == ["trying"]
    assert place.path("one").exists()
    assert place.left() == []


def test_a_refused_file_is_removed_with_the_reason_and_what_was_there_stays(place):
    def refuse(spec):
        raise LoadFailed(f"{spec.path.name} is not used: it crashed")

    place.add("one")
    assert place.pull("one").error is None
    before = place.path("one").read_bytes()
    newer = write_tiny_gguf(place.directory.path / "newer.gguf", seed=9).read_bytes()
    place.hub.put(REPO, FILE, newer)
    place.screen = refuse
    download = place.replace("one")
    assert download.state == "failed"
    assert re.fullmatch(r"one-[0-9a-f]{12}\.gguf is not used: it crashed", download.error)
    kept = place.models.catalog.find("one")
    assert (kept.path, kept.path.read_bytes()) == (place.path("one"), before)
    assert place.left() == []
    place.screen = trusted
    assert place.pull("one").error is None  # it is still the file that its entry names
    assert place.replace("one").error is None
    assert place.models.catalog.find("one").path.read_bytes() == newer
    assert not place.path("one").exists()
    assert place.left() == []


def test_a_file_whose_trial_said_nothing_of_it_is_kept_for_the_next_pull(place):
    def unfinished(spec):
        raise TrialUnfinished(spec.path.name, "no process could be started")

    place.add("one")
    place.screen = unfinished
    place.hub.sent = 0
    assert place.pull("one").error == (
        "one.gguf could not be tried: no process could be started; try again."
    )
    assert not place.path("one").exists()
    place.screen = trusted
    assert place.pull("one").error is None
    assert place.hub.sent == len(place.content)
    assert place.left() == []


def test_cancelling_a_download_whose_file_is_tried_ends_the_trial_and_keeps_the_bytes(
    place, monkeypatch
):
    screening = Screening.over(place.directory, place.models.digests, EngineSettings())
    try:
        place.with_screen(screening.require)
        place.add("one")
        place.hub.sent = 0
        with monkeypatch.context() as patch:
            patch.setattr(trial, "COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
            download = place.begin("one")
            until(lambda: any(run.trial.step == "starting" for run in runs(screening)))
            asyncio.run(place.admin.cancel(download.id))
            assert ended(download).state == "cancelled"
        assert "kept" in download.error
        until(lambda: not runs(screening))
        assert not place.path("one").exists()
        assert place.pull("one").error is None
        assert place.hub.sent == len(place.content)
        # What its trial found is known of the file by its new name too.
        assert screening.is_tried(place.models.catalog.find("one"))
    finally:
        screening.close()


def runs(screening):
    return list(screening._runs.values())


def test_a_refusal_of_one_entry_leaves_the_file_to_another_that_waits(place):
    def screen(spec):
        if spec.id == "first":
            until(lambda: second.bytes_have > 0)
            raise LoadFailed("not with this pooling")

    place.add("first")
    place.add("second")
    place.screen = screen
    place.hub.sent = 0
    first = place.begin("first")
    second = place.begin("second")
    assert ended(first).error == "not with this pooling"
    assert ended(second).error is None
    assert place.hub.sent == len(place.content)
    assert place.left() == []


# -- what changes meanwhile ------------------------------------------------------------------------


def test_an_entry_that_is_removed_while_its_file_is_fetched_gets_no_file(place):
    place.add("one")
    place.hub.faults.pause_s = 0.005
    download = place.begin("one")
    until(lambda: download.bytes_have > 100_000)
    place.directory.catalog.unlink()
    place.models.reread()
    assert "was removed or changed while its file was fetched" in ended(download).error
    assert download.state == "failed"
    assert not place.path("one").exists()


def test_a_folder_that_has_the_models_name_is_one_line(place):
    place.add("one")
    place.path("one").mkdir()
    error = place.pull("one").error
    assert error.endswith("one.gguf is a folder; move it away and pull again")
    assert place.hub.asked()[-1][2] is not None  # what `add` looked at; nothing was fetched


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
def test_what_has_the_parts_name_is_never_written_to(place, kind, tmp_path):
    place.add("one")
    part = place.directory.models / f"{place.hub.digest(REPO, FILE)}.part"
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    if kind == "link":
        part.symlink_to(other)
    elif kind == "hard link":
        part.hardlink_to(other)
    else:
        part.mkdir()
    download = place.pull("one")
    assert other.read_bytes() == b"mine"
    if kind == "folder":
        assert download.error.startswith(f"{part}: Is a directory")
    else:
        assert download.error is None
        assert place.path("one").read_bytes() == place.content


def test_a_loaded_files_bytes_stay_until_its_successor_has_its_name(place):
    place.add("one")
    assert place.pull("one").error is None
    before = place.path("one").read_bytes()
    with place.path("one").open("rb") as held:
        place.hub.put(REPO, FILE, before[:-1] + b"?")
        assert place.replace("one").error is None
        assert held.read() == before
    assert place.models.catalog.find("one").path.read_bytes() == place.content


def test_checking_what_is_here_shows_its_progress_and_can_be_cancelled(place, monkeypatch):
    place.add("one")
    assert place.pull("one").error is None
    os.utime(place.path("one"), (1, 1))
    seen = []
    monkeypatch.setattr("appliance.store.digests.READ_BYTES", 100_000)
    monkeypatch.setattr(
        "appliance.hub.downloads.Download.progress", lambda self, have: seen.append((self, have))
    )
    assert place.pull("one").error is None
    assert len({have for _, have in seen}) > 10


# -- in the place of another ------------------------------------------------------------------------


def own_entry(place, name):
    return find(tomlkit.parse(place.directory.catalog.read_text()), name)


def test_a_taken_id_wants_replace_before_the_hub_is_asked(place):
    place.add("one")
    seen, entry = len(place.hub.seen), own_entry(place, "one")
    with pytest.raises(InvalidRequest, match="there is a model one already; use --replace"):
        place.add("one", FOLDER, None)
    shipped = "sentence-transformers/all-MiniLM-L6-v2"
    with pytest.raises(InvalidRequest, match="there is a model sentence-transformers/all-MiniLM"):
        place.add(shipped)
    assert len(place.hub.seen) == seen
    assert own_entry(place, "one") == entry


@pytest.mark.parametrize("is_here", [False, True], ids=["not pulled", "pulled"])
def test_a_replaced_model_of_the_hub_keeps_the_operators_words(place, is_here):
    place.add("one")
    place.price("one", "0.25")
    place.alias("one", "other-name")
    own = place.directory.catalog
    words = 'pin = true\npreload = true\nisolation = "process"\nprompts = { query = "q: " }\n'
    own.write_text(own.read_text().replace("[[model]]\n", f"[[model]]\n{words}"))
    place.models.reread()
    if is_here:
        assert place.pull("one").error is None
    place.hub.put(REPO, FILE, place.content[:-1] + b"?")
    view = place.add("one", replace=True)
    if is_here:
        assert ended(place.downloads.get(view.download)).error is None
    else:
        assert view.download is None
        assert place.pull("one").error is None
    spec = place.models.catalog.find("other-name")
    assert (spec.id, str(spec.tariff.realtime), spec.prompt("query")) == ("one", "0.25", "q: ")
    assert (spec.entry.pin, spec.entry.preload, spec.entry.isolation) == (True, True, "process")
    assert spec.path.read_bytes() == place.content
    assert spec.entry.sha256 == place.hub.digest(REPO, FILE)
    assert len(list(place.directory.models.glob("*.gguf"))) == 1


def test_a_local_model_that_is_replaced_from_the_hub_is_served_until_the_new_one_is_tried(
    place, tmp_path
):
    source = write_tiny_gguf(tmp_path / "mine.gguf", seed=5)
    asyncio.run(place.model_admin.add(AddModelOrder(path=str(source), id="mine")))
    before = place.models.catalog.find("mine")

    def screen(spec):
        assert place.models.catalog.find("mine") == before
        assert before.path.read_bytes() == source.read_bytes()

    place.screen = screen
    view = place.add("mine", FOLDER, None, replace=True)
    assert view.task == "embeddings"  # as it still is
    assert ended(place.downloads.get(view.download)).error is None
    after = place.models.catalog.find("mine")
    assert (after.task, after.entry.source.repo) == ("rerank", FOLDER)
    assert place.models.digests.sha256(after.path) == after.entry.sha256
    assert not before.path.exists()
    assert source.exists()
    assert place.left() == []


def test_a_shipped_model_that_is_replaced_keeps_nothing_that_was_said_of_its_file(place):
    shipped = "sentence-transformers/all-MiniLM-L6-v2"
    assert place.replace(shipped).error is None
    spec = place.models.catalog.find(shipped)
    assert spec.path.read_bytes() == place.content
    assert (spec.entry.dimensions, spec.entry.license) == (32, "")
    assert "all-minilm-l6-v2" in spec.entry.aliases


def test_a_replacement_that_is_cancelled_or_whose_model_is_removed_meanwhile_changes_nothing(place):
    place.add("one")
    assert place.pull("one").error is None
    before = own_entry(place, "one")
    place.hub.put(REPO, FILE, place.content[:-1] + b"?")
    place.hub.faults.pause_s = 0.01
    download = place.downloads.get(place.add("one", replace=True).download)
    with pytest.raises(InvalidRequest, match="one is being fetched; cancel that first"):
        place.add("one", replace=True)
    until(lambda: download.bytes_have > 100_000)
    asyncio.run(place.admin.cancel(download.id))
    assert ended(download).state == "cancelled"
    assert own_entry(place, "one") == before
    assert place.path("one").exists()
    download = place.downloads.get(place.add("one", replace=True).download)
    until(lambda: download.bytes_have > 1_000_000)
    place.directory.catalog.unlink()
    place.models.reread()
    assert "was removed or changed while its file was fetched" in ended(download).error
    assert not place.directory.catalog.exists()


def test_what_was_assumed_of_a_repository_is_said_and_can_be_given(place, tmp_path):
    source = write_decoder(tmp_path / "qwen.gguf", weights(seed=1), pooling=None)
    place.hub.put(REPO, "qwen.gguf", source.read_bytes())
    [note] = place.add("one", file="qwen.gguf").notes
    assert "the file names no pooling: last was taken" in note
    assert place.add("two", file="qwen.gguf", pooling="cls").notes == ()
    assert place.models.catalog.find("two").entry.pooling == "cls"
    with pytest.raises(InvalidRequest, match="pooling is one of cls, last, mean, not 'max'"):
        place.add("three", file="qwen.gguf", pooling="max")


def test_a_broken_file_of_the_user_is_said_before_the_hub_is_asked(place):
    place.directory.catalog.write_text("schema = 1\n[[model]\n")
    with pytest.raises(InvalidCatalog, match="line 2"):
        place.add("one")
    assert place.hub.seen == []


# -- a hub that fails once --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [503, 429, "cut"])
def test_a_question_that_fails_once_is_asked_again_by_adds_and_pulls(place, monkeypatch, fault):
    monkeypatch.setattr("appliance.hub.retry.PAUSES_S", (0.01, 0.01))
    for name, repo, file in (("one", REPO, FILE), ("two", FOLDER, None)):
        place.hub.faults.questions = [fault]
        place.add(name, repo, file)
        place.hub.faults.questions = [fault]
        assert place.pull(name).error is None
    assert place.hub.faults.questions == []


def test_a_hub_that_goes_on_failing_is_given_up_after_three_tries(place, monkeypatch):
    monkeypatch.setattr("appliance.hub.retry.PAUSES_S", (0.01, 0.01))
    place.hub.faults.questions = [503] * 10
    with pytest.raises(DownloadFailed, match="the hub answers 503"):
        place.add("one")
    assert len(place.hub.seen) == 3


def test_a_refusal_of_a_question_is_final(place):
    place.hub.faults.questions = [403]
    with pytest.raises(DownloadFailed):
        place.add("one")
    assert len(place.hub.seen) == 1


def test_an_add_that_waits_for_the_hub_is_cancelled_at_once(place, monkeypatch):
    monkeypatch.setattr("appliance.hub.retry.PAUSES_S", (600.0, 600.0))
    place.hub.faults.questions = [503] * 10

    async def story():
        adding = asyncio.create_task(place.admin.add(HubModelOrder(repo=REPO, id="one")))
        await asyncio.to_thread(until, lambda: place.hub.seen)
        [shown] = (await place.model_admin.additions.all()).data
        assert (shown.model, shown.source, shown.stage) == ("one", REPO, "look")
        await place.model_admin.additions.cancel(shown.id)
        with pytest.raises(AdditionCancelled):
            await adding

    asyncio.run(story())
    assert place.left() == []
