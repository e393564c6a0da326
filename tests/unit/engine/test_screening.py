"""Files are tried in a process of their own: good ones pass, bad ones say why, crashes stay there."""

import json
import os
import shutil

import numpy as np
import pytest

from appliance.catalog import catalog, importer
from appliance.catalog.header_parser import read_header
from appliance.core.errors import InvalidModelFile, LoadFailed
from appliance.engine import screening
from appliance.engine.screening import Screening, tried
from tests import decoders, encoders
from tests.decoders import write_decoder
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
    reason, _ = tried(spec_of(write(tmp_path / "tiny.gguf")))
    assert reason is None


def test_a_reranker_whose_head_is_nothing_but_zeros_is_refused(tmp_path):
    weights = encoders.xlmr_weights(seed=1)
    weights["cls.output.weight"] = np.zeros_like(weights["cls.output.weight"])
    spec = spec_of(encoders.write_xlmr(tmp_path / "tiny.gguf", weights))
    assert tried(spec) == (
        "it scores everything alike: its head is missing or not what it says",
        [],
    )


def test_an_embedder_that_gives_every_text_the_same_vector_is_refused(tmp_path):
    weights = decoders.weights(seed=1)
    weights["token_embd"] = np.ones_like(weights["token_embd"])
    spec = spec_of(write_decoder(tmp_path / "tiny.gguf", weights))
    assert tried(spec) == ("every text gets the same vector", [])


def test_an_embedder_of_numbers_that_are_none_is_refused(tmp_path):
    weights = decoders.weights(seed=1)
    weights["output_norm"] = np.full_like(weights["output_norm"], np.nan)
    reason, _ = tried(spec_of(write_decoder(tmp_path / "tiny.gguf", weights)))
    assert "not finite" in reason


def test_a_file_that_makes_the_library_abort_takes_nobody_with_it(tmp_path, monkeypatch):
    spec = spec_of(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))
    killer = tmp_path / "site" / "sitecustomize.py"
    killer.parent.mkdir()
    killer.write_text(
        "import os, sys\n"
        "class Hook:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'appliance.engine.llama.weights':\n"
        "            os.abort()\n"
        "sys.meta_path.insert(0, Hook())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(killer.parent))
    reason, _ = tried(spec)
    assert reason == "llama.cpp crashed at loading it (SIGABRT)"


def test_a_file_that_takes_for_ever_is_given_up(tmp_path):
    spec = spec_of(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))
    reason, _ = tried(spec, seconds=0.05)
    assert "took longer than" in reason


def test_a_file_that_wants_all_memory_is_refused(tmp_path, monkeypatch):
    spec = spec_of(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))
    monkeypatch.setattr(screening, "MEMORY_BYTES", 1_000_000)
    reason, _ = tried(spec)
    assert reason is not None


def test_what_is_no_model_file_is_refused_without_a_process(tmp_path):
    spec = spec_of(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))
    spec.path.write_bytes(b"GGUF" + os.urandom(1000))
    with pytest.raises(InvalidModelFile):
        Screening(tmp_path).require(spec)


def test_a_verdict_is_kept_until_the_file_or_its_entry_changes(tmp_path, monkeypatch):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    spec, keeper, asked = spec_of(path), Screening(tmp_path), []

    def once(spec):
        asked.append(spec.id)
        return "it is bad", ["and so on"]

    monkeypatch.setattr(screening, "tried", once)
    for _ in range(3):
        with pytest.raises(LoadFailed, match=r"tiny\.gguf is not used: it is bad"):
            keeper.require(spec)
    assert asked == ["tiny"]
    assert keeper.known(spec).reason == "it is bad"
    assert keeper.path(spec).stat().st_mode & 0o777 == 0o600
    shutil.copy(path, tmp_path / "other.gguf")
    (tmp_path / "other.gguf").replace(path)
    assert keeper.known(spec) is None
    monkeypatch.setattr(screening, "tried", lambda _: (None, []))
    keeper.require(spec)
    assert keeper.known(spec).reason is None
    assert keeper.known(spec_of(path, pooling="cls")) is None
    keeper.path(spec).write_text("not json")
    assert keeper.known(spec) is None


def test_the_starter_model_is_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(screening, "tried", lambda _: pytest.fail("it is ours"))
    own = catalog.load(catalog.shipped_path(), tmp_path / "none.toml", tmp_path)
    Screening(tmp_path).require(own.find("all-minilm-l6-v2"))
