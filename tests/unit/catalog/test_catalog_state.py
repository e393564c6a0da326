"""Whatever is added, replaced, refused, changed, removed or cut off: what was listed and usable is
so afterwards, with its price and names, and every file is the one that its entry names.

A crash is a copy of the data directory, made in the middle of a step and used from then on: nothing
that a dying process would have done in its `finally` is in it.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.admin.models import ModelAdmin, Models
from appliance.catalog.addition import Addition
from appliance.catalog.entry_edit import EntryEdit
from appliance.core.errors import InvalidModelFile, InvalidRequest, LoadFailed
from appliance.engine.screening import trusted
from appliance.store.datadir import DataDir
from appliance.store.digests import sha256_of
from tests.models import write_tiny_gguf

RUNS = int(os.environ.get("CATALOG_RUNS", "60"))
"""Examples; more where one looks for something."""
IDS = ("a", "owner/a", "owner--a", "b")
STEPS = ("replace", "unlink", "fsync")
"""Calls of the system between which a process can die."""


class Dies(BaseException):
    """The process is killed here."""


class Killer:
    """Copies the data directory at the nth call of the system, and ends the step."""

    def __init__(self, data, copy, nth):
        self._data, self._copy, self._left = data, copy, nth
        self.died = False
        self._real = {name: getattr(os, name) for name in STEPS}

    def __enter__(self):
        for name in STEPS:
            setattr(os, name, self._counted(name))
        return self

    def __exit__(self, *_):
        for name, function in self._real.items():
            setattr(os, name, function)

    def _counted(self, name):
        def call(*arguments, **options):
            self._left -= 1
            if self._left == 0:
                self.died = True
                shutil.copytree(self._data, self._copy, symlinks=True)
                raise Dies
            return self._real[name](*arguments, **options)

        return call


@lru_cache
def contents():
    """Return two embedding models and a reranker."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            write_tiny_gguf(Path(folder) / f"{seed}.gguf", seed=seed, labels=labels).read_bytes()
            for seed, labels in ((1, None), (2, None), (3, 1))
        ]


def refuse(_, _wanted):
    raise LoadFailed("it scores everything alike")


class Shelf(RuleBasedStateMachine):
    """The user's own models, and what must be true of them."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="catalog-state-"))
        self.sources = []
        for number, content in enumerate(contents()):
            self.sources.append(self.folder / f"source-{number}.gguf")
            self.sources[-1].write_bytes(content)
        self.digests = [sha256_of(source) for source in self.sources]
        self.lives = 0
        self.true = {}
        """Id to (digest, price, aliases)."""
        self.open(self.folder / "data-0")

    def teardown(self):
        shutil.rmtree(self.folder)

    def open(self, path):
        self.directory = DataDir(path)
        self.directory.create()
        self.models = Models.read(self.directory)
        assert self.models.fault is None
        self.admin = ModelAdmin(self.models)

    # -- steps -----------------------------------------------------------------------------------

    def add(self, name, number, *, replace, screen=trusted):
        own = self.models.user_catalog
        Addition(
            own,
            self.sources[number],
            self.models.digests,
            screen,
            model_id=name,
            replace=replace,
        ).run()
        self.models.reread()

    def added(self, name, number):
        """What is true after an addition that was carried out."""
        before = self.true.get(name)
        price, aliases = "0.008", ()
        if before is not None:
            aliases = before[2]
            if (before[0] == self.digests[2]) == (number == 2):
                price = before[1]
        return {**self.true, name: (self.digests[number], price, aliases)}

    def step(self, act, after, nth):
        """Do one step, or die in it and start again; either state may be true then."""
        if nth is None:
            act()
            self.true = after
            return
        self.lives += 1
        copy = self.folder / f"data-{self.lives}"
        with Killer(self.directory.path, copy, nth) as killer, suppress(Dies):
            act()
        if not killer.died:
            self.true = after
            return
        self.open(copy)
        assert self.found() in (self.true, after)
        self.true = self.found()

    NTH = st.none() | st.integers(1, 16)

    @rule(name=st.sampled_from(IDS), number=st.integers(0, 2), nth=NTH)
    def add_or_replace(self, name, number, nth):
        self.step(
            lambda: self.add(name, number, replace=name in self.true),
            self.added(name, number),
            nth,
        )

    @precondition(lambda self: self.true)
    @rule(data=st.data(), number=st.integers(0, 2))
    def be_refused_because_it_is_there(self, data, number):
        name = data.draw(st.sampled_from(sorted(self.true)))
        with pytest.raises(InvalidRequest, match="already"):
            self.add(name, number, replace=False)

    @rule(name=st.sampled_from(IDS), number=st.integers(0, 2), nth=NTH)
    def be_refused_in_its_trial(self, name, number, nth):
        def act():
            with pytest.raises(InvalidModelFile, match="it scores everything alike"):
                self.add(name, number, replace=True, screen=refuse)

        self.step(act, self.true, nth)

    @precondition(lambda self: self.true)
    @rule(data=st.data(), cents=st.integers(1, 9), nth=NTH)
    def price(self, data, cents, nth):
        name = data.draw(st.sampled_from(sorted(self.true)))
        digest, _, aliases = self.true[name]

        def act():
            EntryEdit(self.models.user_catalog).set_price(name, realtime=f"0.{cents}", batch=None)
            self.models.reread()

        self.step(act, {**self.true, name: (digest, f"0.{cents}", aliases)}, nth)

    @precondition(lambda self: self.true)
    @rule(data=st.data(), count=st.integers(0, 2), nth=NTH)
    def alias(self, data, count, nth):
        name = data.draw(st.sampled_from(sorted(self.true)))
        digest, price, _ = self.true[name]
        names = tuple(f"{IDS.index(name)}-alias-{number}" for number in range(count))

        def act():
            EntryEdit(self.models.user_catalog).set_aliases(name, names)
            self.models.reread()

        self.step(act, {**self.true, name: (digest, price, names)}, nth)

    @precondition(lambda self: self.true)
    @rule(data=st.data(), nth=NTH)
    def remove(self, data, nth):
        name = data.draw(st.sampled_from(sorted(self.true)))
        after = {key: value for key, value in self.true.items() if key != name}
        self.step(lambda: self.admin._remove(self.models.find(name)), after, nth)

    @rule()
    def start_again(self):
        self.open(self.directory.path)

    # -- what must be true -----------------------------------------------------------------------

    def found(self):
        return {
            spec.id: (spec.entry.sha256, str(spec.tariff.realtime), spec.entry.aliases)
            for spec in self.models.user_catalog.current()
            if spec.id in IDS
        }

    @invariant()
    def every_model_is_what_it_was(self):
        assert self.found() == self.true

    @invariant()
    def every_file_is_what_its_entry_names_and_there_is_no_other(self):
        specs = [self.models.find(name) for name in self.true]
        assert len({spec.path for spec in specs}) == len(specs)
        for spec in specs:
            assert sha256_of(spec.path) == spec.entry.sha256
        here = {path.resolve() for path in self.directory.models.glob("*.gguf")}
        assert here == {spec.path for spec in specs}
        assert not list(self.directory.models.glob(".adding-*"))


Shelf.TestCase.settings = settings(
    max_examples=RUNS, stateful_step_count=12, deadline=None, print_blob=True
)
TestModelsStayUsable = Shelf.TestCase
