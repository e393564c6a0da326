"""The operator's verbs for models: none waits for an add, and a broken file harms no other one."""

import asyncio
import threading

import pytest

from appliance.admin import additions
from appliance.admin.additions import AdditionCancelled
from appliance.admin.models import ModelAdmin, Models
from appliance.core.errors import (
    InvalidCatalog,
    InvalidModelFile,
    InvalidRequest,
    LoadFailed,
)
from appliance.store.datadir import DataDir
from appliance.wire.models import AddModelOrder, AliasOrder, ModelOrder, PriceOrder
from tests.decoders import weights, write_decoder
from tests.models import write_tiny_gguf

SHIPPED = "sentence-transformers/all-MiniLM-L6-v2"
BROKEN = "schema = 1\n[[model]\n"


@pytest.fixture
def directory(tmp_path):
    made = DataDir(tmp_path / "data")
    made.create()
    return made


@pytest.fixture
def source(tmp_path):
    return write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)


class Trial:
    """A trial that waits until it is let go."""

    def __init__(self):
        self.began, self.go = threading.Event(), threading.Event()

    def __call__(self, _spec, _wanted):
        self.began.set()
        assert self.go.wait(60)


def adding(path, **order):
    return AddModelOrder(path=str(path), **order)


def files(directory):
    return {path.name for path in directory.models.iterdir()}


def test_while_a_model_is_added_prices_aliases_and_removals_go_on(directory, source):
    trial = Trial()
    quick = ModelAdmin(Models.read(directory))

    async def story():
        await quick.add(adding(source, id="old"))
        admin = ModelAdmin(Models.read(directory), screen=trial)
        task = asyncio.create_task(admin.add(adding(source)))
        await asyncio.to_thread(trial.began.wait, 60)
        await admin.price(PriceOrder(id=SHIPPED, realtime="0.5"))
        await admin.alias(AliasOrder(id="old", aliases=["older"]))
        assert (await admin.remove(ModelOrder(id="older"))).id == "old"
        assert not task.done()
        trial.go.set()
        assert (await task).id == "tiny"
        assert str((await admin.show(SHIPPED)).pricing.realtime) == "0.5"

    asyncio.run(story())


def test_adds_that_hang_keep_their_places_and_no_other_verb_waits(directory, source):
    trial = Trial()

    async def story():
        admin = ModelAdmin(Models.read(directory), screen=trial)
        tasks = [
            asyncio.create_task(admin.add(adding(source, id=f"m{number}")))
            for number in range(additions.RUNNING_MAX)
        ]
        await asyncio.sleep(0)
        with pytest.raises(InvalidRequest, match="models are being added already"):
            await admin.add(adding(source, id="more"))
        for number in range(20):
            await admin.price(PriceOrder(id=SHIPPED, realtime=f"0.{number + 1}"))
        trial.go.set()
        assert {view.id for view in await asyncio.gather(*tasks)} == {"m0", "m1", "m2"}

    asyncio.run(story())


def test_two_adds_of_one_id_at_once_are_one_model_and_a_refusal(directory, tmp_path):
    trial = Trial()
    sources = [write_tiny_gguf(tmp_path / f"{seed}/tiny.gguf", seed=seed) for seed in (1, 2)]

    async def story():
        admin = ModelAdmin(Models.read(directory), screen=trial)
        tasks = [asyncio.create_task(admin.add(adding(path))) for path in sources]
        await asyncio.to_thread(trial.began.wait, 60)
        trial.go.set()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, InvalidRequest)]
        assert len(refused) == 1
        assert "there is a model tiny already" in refused[0].message
        assert (await admin.verify(ModelOrder(id="tiny"))).matches
        assert len([name for name in files(directory) if name.endswith(".gguf")]) == 1

    asyncio.run(story())


def test_who_cancels_an_add_finds_everything_as_it_was(directory, source):
    trial = Trial()

    async def story():
        admin = ModelAdmin(Models.read(directory), screen=trial)
        before = files(directory)
        task = asyncio.create_task(admin.add(adding(source)))
        await asyncio.to_thread(trial.began.wait, 60)
        task.cancel()
        for _ in range(3):  # the add is told
            await asyncio.sleep(0)
        trial.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert files(directory) - {"digests.json"} == before
        assert [view.id for view in (await admin.all()).data if view.id == "tiny"] == []

    asyncio.run(story())


def test_an_add_is_shown_and_cancelled_by_somebody_else(directory, source):
    waits = threading.Event()

    def screen(_spec, wanted):
        waits.set()
        while True:
            wanted()

    async def story():
        admin = ModelAdmin(Models.read(directory), screen=screen)
        before = files(directory)
        task = asyncio.create_task(admin.add(adding(source)))
        await asyncio.to_thread(waits.wait, 60)
        [shown] = (await admin.additions.all()).data
        assert (shown.model, shown.source, shown.stage) == ("tiny", str(source), "try")
        with pytest.raises(InvalidRequest, match="it may have ended"):
            await admin.additions.cancel("add_none")
        assert (await admin.additions.cancel(shown.id)).id == shown.id
        with pytest.raises(AdditionCancelled, match="nothing is changed"):
            await task
        assert (await admin.additions.all()).data == []
        assert files(directory) - {"digests.json"} == before

    asyncio.run(story())


def test_bytes_count_as_freed_when_no_other_name_of_the_file_is_left(directory, source):
    async def story():
        admin = ModelAdmin(Models.read(directory))
        await admin.add(adding(source, id="one"))
        await admin.add(adding(source, id="two"))
        one = next(path for path in directory.models.glob("one-*.gguf"))
        two = next(path for path in directory.models.glob("two-*.gguf"))
        two.unlink()
        two.hardlink_to(one)
        assert (await admin.remove(ModelOrder(id="one"))).freed == 0
        assert not one.exists()
        assert (await admin.remove(ModelOrder(id="two"))).freed == source.stat().st_size

    asyncio.run(story())


def test_a_refused_replacement_leaves_the_model_and_its_words(directory, source, tmp_path):
    def screen(spec, _wanted):
        if spec.entry.sha256 != good:
            raise LoadFailed(f"{spec.path.name} is not used: it scores everything alike")

    async def story():
        nonlocal good
        good = (await ModelAdmin(Models.read(directory)).add(adding(source, id="same"))).id
        admin = ModelAdmin(Models.read(directory), screen=screen)
        await admin.price(PriceOrder(id="same", realtime="0.5"))
        await admin.alias(AliasOrder(id="same", aliases=["words"]))
        other = write_tiny_gguf(tmp_path / "other.gguf", seed=2)
        with pytest.raises(InvalidModelFile) as caught:
            await admin.add(adding(other, id="same", replace=True))
        assert caught.value.message == f"{other}: it scores everything alike"
        kept = await admin.show("words")
        assert (kept.id, str(kept.pricing.realtime)) == ("same", "0.5")
        assert (await admin.verify(ModelOrder(id="same"))).matches

    good = ""
    asyncio.run(story())


def test_what_was_assumed_of_a_model_is_in_the_answer_to_its_addition_alone(directory, tmp_path):
    source = write_decoder(tmp_path / "qwen.gguf", weights(seed=1), pooling=None)

    async def story():
        admin = ModelAdmin(Models.read(directory))
        [note] = (await admin.add(adding(source))).notes
        assert "the file names no pooling" in note
        assert (await admin.show("qwen")).notes == ()

    asyncio.run(story())


# -- a models.toml that cannot be read -----------------------------------------------------------


def test_a_broken_file_is_said_and_only_the_shipped_models_are_served(directory, caplog):
    directory.catalog.write_text(BROKEN)
    models = Models.read(directory)
    assert models.fault is not None
    assert str(directory.catalog) in caplog.text
    assert "only the shipped models are served" in caplog.text

    async def story():
        admin = ModelAdmin(models)
        listed = await admin.all_and_fault()
        assert str(directory.catalog) in listed.warning
        assert SHIPPED in [view.id for view in listed.data]
        assert (await admin.all()).warning is None  # which anybody may read
        assert (await admin.show(SHIPPED)).id == SHIPPED

    asyncio.run(story())
    assert directory.catalog.read_text() == BROKEN


@pytest.mark.parametrize("verb", ["show", "price", "alias", "add", "remove", "verify"])
def test_verbs_that_need_a_broken_file_name_file_line_and_remedy(directory, source, verb):
    directory.catalog.write_text(BROKEN)
    orders = {
        "show": "mine/x",
        "price": PriceOrder(id=SHIPPED, realtime="1"),
        "alias": AliasOrder(id=SHIPPED, aliases=["x"]),
        "add": adding(source),
        "remove": ModelOrder(id="mine/x"),
        "verify": ModelOrder(id="mine/x"),
    }
    admin = ModelAdmin(Models.read(directory))
    with pytest.raises(InvalidCatalog) as caught:
        asyncio.run(getattr(admin, verb)(orders[verb]))
    assert str(directory.catalog) in caught.value.message
    assert "line 2" in caught.value.message
    assert "Mend it there" in caught.value.message
    assert directory.catalog.read_text() == BROKEN


def test_a_file_that_was_mended_counts_at_the_next_change(directory):
    directory.catalog.write_text(BROKEN)
    models = Models.read(directory)
    directory.catalog.unlink()
    asyncio.run(ModelAdmin(models).price(PriceOrder(id=SHIPPED, realtime="0.5")))
    assert models.fault is None


def test_what_ships_must_be_right(directory, monkeypatch, tmp_path):
    broken = tmp_path / "shipped.toml"
    broken.write_text(BROKEN)
    monkeypatch.setattr("appliance.admin.models.shipped_path", lambda: broken)
    with pytest.raises(InvalidCatalog, match="shipped"):
        Models.read(directory)
