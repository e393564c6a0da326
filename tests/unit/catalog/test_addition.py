"""What an addition refuses before it copies, what it says of a file, and what it never loses."""

import json
import os
import struct
import threading

import gguf
import pytest

from appliance.catalog.addition import Addition
from appliance.catalog.catalog import load, shipped_path
from appliance.catalog.entry_edit import EntryEdit
from appliance.catalog.leftovers import Leftovers
from appliance.catalog.user_catalog import UserCatalog
from appliance.core.errors import InvalidModelFile, InvalidRequest, LoadFailed
from appliance.engine.screening import trusted
from appliance.store.digests import Digests, sha256_of
from tests.decoders import weights, write_decoder
from tests.models import CONTEXT, safetensors_bytes, write_tiny_bert_folder, write_tiny_gguf


class Folder:
    """A data directory, and a folder of the user's own files beside it."""

    def __init__(self, path):
        self.path = path
        self.models = path / "data/models"
        self.models.mkdir(parents=True)
        self.own = UserCatalog(path / "data/models.toml", self.models)
        self.digests = Digests(None)

    def add(self, source, *, screen=trusted, **options):
        return Addition(self.own, source, self.digests, screen, **options).run()

    def find(self, name):
        return load(shipped_path(), self.own.path, self.models).find(name)

    def left(self):
        """Every file in the data directory, with its content."""
        data = self.models.parent
        return {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*") if p.is_file()}

    def refused(self, match, source, error=InvalidModelFile, **options):
        before = self.left()
        with pytest.raises(error, match=match) as caught:
            self.add(source, **options)
        assert self.left() == before
        assert ".adding-" not in caught.value.message
        return caught.value.message


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def embedder(path, *, seed=1):
    return write_tiny_gguf(path, seed=seed)


def bad(_, _wanted):
    raise LoadFailed("it scores everything alike")


# -- a refused addition leaves what was there ----------------------------------------------------


def test_a_model_that_fails_its_trial_leaves_the_one_in_whose_place_it_was_to_be(folder):
    folder.add(embedder(folder.path / "good.gguf"), model_id="same")
    EntryEdit(folder.own).set_price("same", realtime="0.5", batch=None)
    EntryEdit(folder.own).set_aliases("same", ["other-name"])
    other = embedder(folder.path / "bad.gguf", seed=2)
    message = folder.refused(
        "it scores everything alike", other, model_id="same", replace=True, screen=bad
    )
    assert str(other) in message
    kept = folder.find("other-name")
    assert (kept.id, str(kept.tariff.realtime)) == ("same", "0.5")
    assert sha256_of(kept.path) == kept.entry.sha256


def test_the_trial_sees_the_file_that_will_be_used_and_its_entry(folder):
    seen = []

    def screen(spec, _wanted):
        seen.append((spec.id, spec.path.exists(), sha256_of(spec.path), spec.entry.sha256))
        assert not any(name.endswith("tiny.gguf") for name in folder.left())

    source = embedder(folder.path / "tiny.gguf")
    folder.add(source, screen=screen)
    assert seen == [("tiny", True, sha256_of(source), sha256_of(source))]


def test_an_id_that_is_taken_is_refused_until_it_is_to_be_replaced(folder):
    source = embedder(folder.path / "tiny.gguf")
    folder.add(source)
    folder.refused(
        "there is a model tiny already; use --replace or another --id", source, InvalidRequest
    )
    assert folder.add(source, replace=True).id == "tiny"


def test_two_folders_with_a_file_of_one_name_are_two_models_or_a_refusal(folder):
    for name, seed in (("x", 1), ("y", 2)):
        (folder.path / name).mkdir()
        embedder(folder.path / name / "model.gguf", seed=seed)
    folder.add(folder.path / "x/model.gguf")
    folder.refused("there is a model model already", folder.path / "y/model.gguf", InvalidRequest)
    folder.add(folder.path / "y/model.gguf", model_id="y")
    assert folder.find("model").entry.sha256 == sha256_of(folder.path / "x/model.gguf")
    assert folder.find("y").entry.sha256 == sha256_of(folder.path / "y/model.gguf")


def test_what_the_operator_said_of_a_model_stays_when_it_is_replaced(folder):
    folder.add(embedder(folder.path / "tiny.gguf"))
    EntryEdit(folder.own).set_price("tiny", realtime="0.25", batch="0.1")
    EntryEdit(folder.own).set_aliases("tiny", ["mine"])
    text = folder.own.path.read_text()
    more = 'prompts = { query = "q: " }\npin = true\npreload = true\nlicense = "mit"\n'
    words = 'description = "Ours."\n'
    lines = [line for line in text.splitlines() if not line.startswith("description")]
    folder.own.path.write_text("\n".join(lines) + "\n" + more + words)
    added = folder.add(embedder(folder.path / "new/tiny.gguf", seed=2), replace=True)
    assert added.notes == []
    spec = folder.find("mine")
    entry = spec.entry
    assert (str(spec.tariff.realtime), str(spec.tariff.batch)) == ("0.25", "0.1")
    assert (entry.pin, entry.preload, entry.license) == (True, True, "mit")
    assert (entry.prompts.query, entry.description) == ("q: ", "Ours.")
    assert entry.sha256 == sha256_of(folder.path / "new/tiny.gguf")
    assert len([name for name in folder.left() if name.endswith(".gguf")]) == 1


def test_a_price_set_while_the_replacement_is_tried_is_not_lost(folder):
    folder.add(embedder(folder.path / "tiny.gguf"))

    def screen(_, _wanted):
        EntryEdit(folder.own).set_price("tiny", realtime="0.75", batch=None)

    folder.add(embedder(folder.path / "new/tiny.gguf", seed=2), replace=True, screen=screen)
    assert str(folder.find("tiny").tariff.realtime) == "0.75"


def test_a_replacement_for_another_task_says_what_it_cannot_keep(folder):
    folder.add(embedder(folder.path / "tiny.gguf"))
    EntryEdit(folder.own).set_price("tiny", realtime="0.25", batch=None)
    EntryEdit(folder.own).set_aliases("tiny", ["mine"])
    other = write_tiny_gguf(folder.path / "cross.gguf", seed=2, labels=1)
    [note] = folder.add(other, model_id="tiny", replace=True).notes
    assert "its price was for 1M tokens and is not kept" in note
    assert "gigarouter models price tiny" in note
    assert (folder.find("mine").task, folder.find("mine").tariff.unit) == ("rerank", "1k documents")


def test_the_users_own_source_is_never_removed_with_the_model_it_replaces(folder):
    source = embedder(folder.models / "mine.gguf")
    folder.own.path.write_text(
        'schema = 1\n[[model]]\nid = "mine"\ntask = "embeddings"\nfile = "mine.gguf"\n'
        'dimensions = 32\nmax_input_tokens = 64\npooling = "mean"\n'
        'price = { unit = "1M tokens", realtime = 1.0 }\n'
    )
    folder.add(source, replace=True)
    assert source.exists()
    assert folder.find("mine").path != source


# -- what is refused before anything is copied ---------------------------------------------------


@pytest.fixture
def no_copy(monkeypatch):
    """Fail if anything is copied or converted."""

    def refuse(*_arguments, **_options):
        raise AssertionError("it was copied before it was refused")

    monkeypatch.setattr(Addition, "_copy", refuse)
    monkeypatch.setattr("appliance.catalog.convert.convert_folder", refuse)


def header_only(path, architecture="bert", **keys):
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in keys.items():
        key = name.replace("__", ".")
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint16(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


WRONG = {
    "an architecture": ({"architecture": "gpt2"}, "gpt2 is not served yet"),
    "an adapter": ({"general__type": "adapter"}, "it is a LoRA adapter"),
    "a projector": ({"general__type": "mmproj"}, r"a projector for images or sound \(mmproj\)"),
    "an old projector": ({"architecture": "clip"}, r"a projector for images or sound \(mmproj\)"),
    "a part": (
        {"split__count": 3, "split__no": 1},
        "it is part 2 of 3 of a split file; join them first: llama-gguf-split --merge",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_no_model_of_ours_says_what_it_is_before_it_is_copied(folder, no_copy, kind):
    keys, match = WRONG[kind]
    source = header_only(folder.path / "a.gguf", **keys)
    assert folder.refused(match, source).startswith(f"{source}: ")


RAW = {
    "nothing": (b"", "it is empty"),
    "the other byte order": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "byte order"),
    "a magic turned around": (b"FUGG" + bytes(60), "byte order"),
    "PyTorch": (b"PK\x03\x04" + bytes(60), "a PyTorch file .*give the folder"),
    "safetensors": (safetensors_bytes({}), "a safetensors file; give the folder that holds it"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    "a page": (b"<!DOCTYPE html><html>", "a web page"),
}


@pytest.mark.parametrize("kind", RAW)
def test_a_file_of_another_format_says_what_it_is(folder, no_copy, kind):
    raw, match = RAW[kind]
    source = folder.path / "a.gguf"
    source.write_bytes(raw)
    assert folder.refused(match, source).startswith(f"{source}: ")


def test_a_file_of_which_a_part_is_missing_is_refused_before_it_is_copied(folder, no_copy):
    source = embedder(folder.path / "a.gguf")
    os.truncate(source, source.stat().st_size - 1)
    folder.refused("a part of the file is missing", source)


def test_a_model_without_a_head_is_no_reranker(folder, no_copy):
    source = embedder(folder.path / "a.gguf")
    folder.refused("it has no head for scores", source, InvalidRequest, task="rerank")


def test_a_folder_without_a_model_says_what_it_lacks(folder, no_copy):
    (folder.path / "empty").mkdir()
    folder.refused(r"there is no config\.json in it", folder.path / "empty")
    embedder(folder.path / "files/one.gguf")
    folder.refused(r"give a file in it, not the folder: one\.gguf", folder.path / "files")


def pipe(path):
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize(
    "name",
    ["a.gguf", "m/config.json", "m/model.safetensors", "m/tokenizer.json", "m/modules.json"],
)
def test_a_pipe_is_refused_and_nobody_waits_for_it(folder, name):
    source = folder.path / name.partition("/")[0]
    if "/" in name:
        write_tiny_bert_folder(source, seed=1)
    pipe(folder.path / name)
    found = []

    def add():
        with pytest.raises(InvalidModelFile) as caught:
            folder.add(source)
        found.append(caught.value.message)

    thread = threading.Thread(target=add, daemon=True)
    thread.start()
    thread.join(20)
    assert found
    assert "it is a pipe, and no file" in found[0]
    assert name in found[0]


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(folder, name):
    (folder.path / "a.gguf").symlink_to(name)
    folder.refused("it is a device, and no file", folder.path / "a.gguf")


def test_a_file_that_changes_while_it_is_copied_is_refused(folder):
    source = embedder(folder.path / "a.gguf")

    def grow(stage, _done, _total):
        if stage == "copy":
            with source.open("ab") as file:
                file.write(b"x")

    folder.refused("it changed while it was copied", source, progress=grow)


def test_a_file_for_which_there_is_no_room_is_refused_before_it_is_copied(
    folder, no_copy, monkeypatch
):
    monkeypatch.setattr("appliance.catalog.addition.DISK_SPARE_BYTES", 1 << 60)
    folder.refused(r"MB and the disk of .* has room for 0 MB", embedder(folder.path / "a.gguf"))


# -- what an addition reads, and when it ends ----------------------------------------------------


def test_a_file_is_read_once_and_its_digest_is_known_afterwards(folder, monkeypatch):
    headers = []
    import appliance.catalog.addition as module

    parse = module.parse_header
    monkeypatch.setattr(module, "parse_header", lambda *a: headers.append(a) or parse(*a))
    monkeypatch.setattr(module, "read_header", headers.append)
    monkeypatch.setattr(
        "appliance.store.digests.sha256_of", lambda *_: pytest.fail("it was hashed a second time")
    )
    folder.add(embedder(folder.path / "a.gguf"))
    assert len(headers) == 1
    spec = folder.find("a")
    assert folder.digests.sha256(spec.path) == spec.entry.sha256


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_addition_tells_its_stages_in_order_and_ends_at_each(folder, kind):
    source = embedder(folder.path / "tiny.gguf")
    source = source if kind == "file" else folder.path / "tiny-folder"
    folder.add(embedder(folder.path / "before.gguf", seed=3), model_id="same")
    stages = []

    def watch(stage, done, total):
        assert 0 <= done <= total
        if stage not in stages:
            stages.append(stage)

    folder.add(source, model_id="seen", progress=watch)
    assert stages == (
        ["copy", "try", "swap"] if kind == "file" else ["convert", "hash", "try", "swap"]
    )
    for last in stages:

        def end(stage, _done, _total, last=last):
            if stage == last:
                raise KeyboardInterrupt

        before = folder.left()
        with pytest.raises(KeyboardInterrupt):
            folder.add(source, model_id="same", replace=True, progress=end)
        assert folder.left() == before


def test_what_a_killed_process_left_is_removed_and_nothing_else(folder):
    folder.add(embedder(folder.path / "tiny.gguf"))
    kept = folder.left()
    leftovers = Leftovers(folder.models)
    (folder.models / ".adding-1.gguf").write_bytes(b"half")
    (folder.models / "..adding-1.gguf.77.tmp").write_bytes(b"half")
    (folder.models / "orphan.gguf").write_bytes(b"replaced")
    (folder.models / "orphan.gguf.tuning.json").write_bytes(b"{}")
    (folder.models / "by-hand.gguf").write_bytes(b"the user's")
    used = folder.find("tiny").path
    leftovers.note([folder.models / "orphan.gguf", used, folder.path / "tiny.gguf"])
    leftovers.sweep(None)  # the catalogue cannot be read: what it may name stays
    assert (folder.models / "orphan.gguf").exists()
    assert not (folder.models / ".adding-1.gguf").exists()
    leftovers.sweep(folder.own.current())
    assert folder.left() == {**kept, "models/by-hand.gguf": b"the user's"}
    assert (folder.path / "tiny.gguf").exists()


# -- what is assumed is said ---------------------------------------------------------------------


def test_a_pooling_that_the_file_does_not_name_is_said_and_can_be_given(folder):
    source = write_decoder(folder.path / "qwen.gguf", weights(seed=1), pooling=None)
    [note] = folder.add(source).notes
    assert "the file names no pooling: last was taken, which is usual for qwen3" in note
    assert "--pooling" in note
    assert folder.add(source, model_id="given", pooling="mean").notes == []
    assert folder.find("given").entry.pooling == "mean"


def test_a_pooling_against_what_the_file_says_is_taken_and_said(folder):
    source = write_decoder(folder.path / "qwen.gguf", weights(seed=1), pooling="last")
    assert folder.add(source).notes == []
    [note] = folder.add(source, model_id="other", pooling="cls").notes
    assert note == "pooling is cls, as asked for; the file says last"
    assert folder.find("other").entry.pooling == "cls"


@pytest.mark.parametrize(("pooling", "labels"), [("max", None), ("mean", 1)])
def test_a_pooling_that_cannot_be_is_refused(folder, no_copy, pooling, labels):
    source = write_tiny_gguf(folder.path / "a.gguf", seed=1, labels=labels)
    folder.refused("pooling", source, InvalidRequest, pooling=pooling)


def model_folder(folder, **files):
    path = folder.path / "m"
    write_tiny_bert_folder(path, seed=1)
    for name, content in files.items():
        file = path / name.replace("__", "/")
        file = file.with_name(f"{file.name}.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return path


def test_a_folders_own_pooling_and_length_are_taken_and_said(folder):
    path = model_folder(
        folder,
        **{"1_Pooling__config": {"pooling_mode_cls_token": True}},
        sentence_bert_config={"max_seq_length": 32, "do_lower_case": False},
        tokenizer_config={"model_max_length": 1e30},
    )
    notes = folder.add(path).notes
    entry = folder.find("m").entry
    assert (entry.pooling, entry.max_input_tokens) == ("cls", 32)
    assert any("pooling is cls, from 1_Pooling/config.json" in note for note in notes)
    assert any(
        f"max_input_tokens is 32, from sentence_bert_config.json; the weights take up to {CONTEXT}"
        in note
        for note in notes
    )


@pytest.mark.parametrize(
    ("sentences", "tokenizer", "tokens"),
    [
        (None, None, CONTEXT),
        (None, 16, 16),
        (32, 16, 16),
        (32, 48, 32),
        (1000, None, CONTEXT),
        (0, 0, CONTEXT),
        (-1, 1e30, CONTEXT),
    ],
)
def test_a_folders_length_is_the_smallest_that_makes_sense(folder, sentences, tokenizer, tokens):
    path = model_folder(
        folder,
        sentence_bert_config={"max_seq_length": sentences},
        tokenizer_config={"model_max_length": tokenizer},
    )
    folder.add(path)
    assert folder.find("m").entry.max_input_tokens == tokens


def test_a_folder_that_names_no_pooling_says_what_was_taken(folder):
    [note] = folder.add(model_folder(folder)).notes
    assert "the folder names no pooling: mean was taken" in note
