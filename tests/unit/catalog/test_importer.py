import hashlib
import struct

import pytest

from appliance.catalog import catalog
from appliance.catalog.addition import Addition
from appliance.catalog.header_parser import read_header
from appliance.catalog.user_catalog import UserCatalog
from appliance.core.errors import InvalidCatalog, InvalidModelFile, InvalidRequest
from appliance.engine.screening import trusted
from appliance.store.digests import Digests, sha256_of
from tests.decoders import TINY, weights, write_decoder
from tests.models import CONTEXT, HIDDEN, write_tiny_bert_folder, write_tiny_gguf

COMMENTS = """\
# My own models.
schema = 1

[[model]]  # the first one
id = "kept"
task = "embeddings"
file = "kept.gguf"  # not here yet
max_input_tokens = 64
pooling = "mean"
dimensions = 8
price = { unit = "1M tokens", realtime = 0.1 }  # dear
"""


class Bench:
    def __init__(self, path):
        self.path = path
        self.models = path / "data/models"
        self.models.mkdir(parents=True)
        self.catalog = path / "data/models.toml"

        self.digests = Digests(None)

    def addition(self, source, *, screen=trusted, **options):
        own = UserCatalog(self.catalog, self.models)
        return Addition(own, source, self.digests, screen, **options)

    def add(self, source, **options):
        return self.addition(source, **options).run().id

    def notes(self, source, **options):
        return self.addition(source, **options).run().notes

    def file(self, name):
        """Where an added model's file is, relative to the data directory."""
        return str(self.find(name).path.relative_to(self.models.parent))

    def find(self, name):
        return catalog.load(catalog.shipped_path(), self.catalog, self.models).find(name)

    def left(self):
        """Everything in the data directory."""
        data = self.catalog.parent
        return sorted(str(p.relative_to(data)) for p in data.rglob("*") if p.is_file())

    def refused(self, error, match, source, **options):
        before = {name: (self.catalog.parent / name).read_bytes() for name in self.left()}
        with pytest.raises(error, match=match):
            self.add(source, **options)
        after = {name: (self.catalog.parent / name).read_bytes() for name in self.left()}
        assert after == before


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def embedder(path, *, seed=1):
    return write_tiny_gguf(path, seed=seed)


# -- what is added ------------------------------------------------------------------------------


def test_a_gguf_file_is_copied_and_described_from_itself(bench):
    source = embedder(bench.path / "tiny-embedder.gguf")
    assert bench.add(source) == "tiny-embedder"
    spec = bench.find("tiny-embedder")
    digest = sha256_of(source)
    assert spec.path == bench.models / f"tiny-embedder-{digest[:12]}.gguf"
    assert spec.path.read_bytes() == source.read_bytes()
    entry = spec.entry
    assert entry.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (entry.task, entry.pooling, entry.dimensions) == ("embeddings", "mean", HIDDEN)
    assert (entry.max_input_tokens, entry.quantization) == (CONTEXT, "F16")
    sizes = [tensor.shape for tensor in read_header(source).tensors.values()]
    assert entry.params == sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in sizes)
    assert (str(spec.tariff.realtime), spec.tariff.unit) == ("0.008", "1M tokens")
    assert bench.left() == ["models.toml", bench.file("tiny-embedder")]


def test_a_gguf_file_with_a_head_is_a_reranker(bench):
    bench.add(write_tiny_gguf(bench.path / "tiny.gguf", seed=1, labels=1), model_id="me/tiny-cross")
    spec = bench.find("me/tiny-cross")
    assert spec.path.name.startswith("me+tiny-cross-")
    entry = spec.entry
    assert (entry.task, entry.pooling, entry.scores) == ("rerank", "rank", "sigmoid")
    assert entry.segments
    assert entry.dimensions is None
    assert spec.tariff.unit == "1k documents"


@pytest.mark.parametrize(("labels", "task"), [(None, "embeddings"), (1, "rerank")])
def test_a_hugging_face_folder_is_converted(bench, labels, task):
    write_tiny_bert_folder(bench.path / "my-model", seed=1, labels=labels)
    assert bench.add(bench.path / "my-model", task=task) == "my-model"
    spec = bench.find("my-model")
    assert spec.task == task
    assert spec.entry.sha256 == sha256_of(spec.path)
    assert read_header(spec.path).get_str("general.name") == "my-model"
    assert bench.left() == ["models.toml", bench.file("my-model")]


def test_a_head_without_activation_answers_its_scores_as_they_are(bench):
    folder = bench.path / "identity"
    write_tiny_bert_folder(
        folder,
        seed=1,
        labels=1,
        config={"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
    )
    bench.add(folder)
    header = read_header(bench.find("identity").path)
    assert header.get_str("gigarouter.head.activation") == "identity"
    assert bench.find("identity").entry.scores == "as-is"


def test_the_users_own_file_is_made_readable_by_its_owner_alone(bench):
    bench.add(embedder(bench.path / "tiny.gguf"))
    assert bench.catalog.stat().st_mode & 0o777 == 0o600
    assert bench.catalog.read_text().startswith(
        "# Your own models; laid over the shipped catalogue."
    )


# -- adding again -------------------------------------------------------------------------------


def test_the_same_id_again_replaces_file_and_entry(bench):
    bench.add(embedder(bench.path / "one.gguf", seed=1), model_id="same")
    first = bench.find("same").entry
    other = write_tiny_gguf(bench.path / "two.gguf", seed=2, labels=1)
    bench.add(other, model_id="same", replace=True)
    second = bench.find("same")
    assert (first.task, second.task) == ("embeddings", "rerank")
    assert second.entry.sha256 == sha256_of(second.path)
    assert bench.catalog.read_text().count("[[model]]") == 1
    assert bench.left() == ["models.toml", bench.file("same")]


def test_a_file_that_is_in_its_place_already_can_be_added(bench):
    source = embedder(bench.models / "tiny.gguf")
    content = source.read_bytes()
    bench.add(source)
    assert bench.find("tiny").path.read_bytes() == content


def test_changing_the_source_later_by_replacing_it_changes_nothing_here(bench):
    source = embedder(bench.path / "tiny.gguf")
    bench.add(source)
    other = embedder(bench.path / "other.gguf", seed=2)
    other.replace(source)
    assert sha256_of(bench.find("tiny").path) == bench.find("tiny").entry.sha256


def test_changing_the_source_later_in_place_changes_nothing_here(bench):
    source = embedder(bench.path / "tiny.gguf")
    source.chmod(0o644)
    bench.add(source)
    # The engine maps the file into memory: with shared bytes this would kill the server.
    source.write_bytes(b"")
    kept = bench.find("tiny")
    assert sha256_of(kept.path) == kept.entry.sha256
    assert kept.path.stat().st_mode & 0o777 == 0o600


def test_comments_and_other_entries_of_the_users_file_survive(bench):
    bench.catalog.write_text(COMMENTS)
    bench.add(embedder(bench.path / "tiny.gguf"))
    text = bench.catalog.read_text()
    assert text.startswith(COMMENTS)
    bench.add(embedder(bench.path / "tiny.gguf", seed=5), replace=True)
    again = bench.catalog.read_text()
    assert again.startswith(COMMENTS)
    assert again.count("[[model]]") == 2
    assert bench.find("kept").entry.dimensions == 8


def test_a_shipped_model_can_be_replaced_by_its_id(bench):
    name = "sentence-transformers/all-MiniLM-L6-v2"
    bench.add(embedder(bench.path / "tiny.gguf"), model_id=name, replace=True)
    assert bench.find(name).entry.dimensions == HIDDEN
    assert bench.find("all-minilm-l6-v2").id == name


# -- refusals, with nothing left behind ---------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "a b", "a/b/c", "-x", "", ".gguf", "a\nb", "/x"])
def test_a_wrong_id_is_refused(bench, name):
    source = embedder(bench.path / "a source.gguf")
    bench.refused(
        InvalidRequest, "cannot be a model's id; give one with --id", source, model_id=name
    )


def test_a_file_whose_name_is_no_id_asks_for_one(bench):
    source = embedder(bench.path / "my model.gguf")
    bench.refused(InvalidRequest, "'my model' cannot be a model's id", source)
    assert bench.add(source, model_id="mine") == "mine"


@pytest.mark.parametrize(
    ("labels", "task", "match"),
    [
        (None, "rerank", "this file is for embeddings, not for rerank"),
        (1, "embeddings", "this file is for rerank, not for embeddings"),
        (None, "chat", "task is 'embeddings' or 'rerank', not 'chat'"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_wrong_task_is_refused(bench, labels, task, match, kind):
    source = write_tiny_gguf(bench.path / "tiny.gguf", seed=1, labels=labels)
    source = source if kind == "file" else bench.path / "tiny-folder"
    bench.refused(InvalidRequest, match, source, task=task)


def test_a_decoder_is_described_from_itself(bench):
    source = write_decoder(bench.path / "qwen.gguf", weights(seed=1))
    bench.add(source)
    entry = bench.find("qwen").entry
    assert (entry.task, entry.pooling, entry.dimensions) == ("embeddings", "last", TINY.width)
    assert entry.max_input_tokens == TINY.context


@pytest.mark.parametrize(
    ("named", "pooling"), [(None, "last"), ("none", "last"), ("mean", "mean"), ("cls", "cls")]
)
def test_a_decoder_that_names_no_pooling_is_read_at_its_last_token(bench, named, pooling):
    bench.add(write_decoder(bench.path / "qwen.gguf", weights(seed=1), pooling=named))
    assert bench.find("qwen").entry.pooling == pooling


def test_a_decoder_whose_head_says_other_words_is_refused(bench):
    source = write_decoder(bench.path / "qwen.gguf", weights(seed=1, labels=2), pooling="rank")
    bench.refused(InvalidModelFile, "its head says .*'label-0'.*Qwen3-Reranker's says", source)


def test_a_decoder_that_names_ranks_and_has_no_head_is_refused(bench):
    source = write_decoder(bench.path / "qwen.gguf", weights(seed=1), pooling="rank")
    bench.refused(InvalidModelFile, "its pooling type 4 gives no vectors", source)


def test_a_decoder_that_sees_what_follows_is_refused(bench):
    more = {"attention.causal": False}
    source = write_decoder(bench.path / "qwen.gguf", weights(seed=1), more=more)
    bench.refused(InvalidModelFile, "qwen3 with attention in both directions", source)


def edited(path, old, new):
    raw = path.read_bytes()
    assert raw.count(old) >= 1
    path.write_bytes(raw.replace(old, new))
    return path


def test_another_architecture_is_refused(bench):
    source = edited(
        embedder(bench.path / "tiny.gguf"), b"\x04\0\0\0\0\0\0\0bert", b"\x04\0\0\0\0\0\0\0gpt2"
    )
    bench.refused(InvalidModelFile, "gpt2 is not served yet; served: bert", source)


@pytest.mark.parametrize("kind", [4, 9])
def test_a_file_that_gives_neither_vectors_nor_scores_is_refused(bench, kind):
    key = b"bert.pooling_type" + struct.pack("<I", 4)
    source = edited(
        embedder(bench.path / "tiny.gguf"),
        key + struct.pack("<I", 1),
        key + struct.pack("<I", kind),
    )
    bench.refused(InvalidModelFile, f"its pooling type {kind} gives no vectors", source)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_classifier_of_several_labels_is_no_reranker(bench, kind):
    source = write_tiny_gguf(bench.path / "tiny.gguf", seed=1, labels=3)
    source = source if kind == "file" else bench.path / "tiny-folder"
    bench.refused(InvalidModelFile, "its head tells 3 labels apart", source)


def test_a_missing_file_is_refused(bench):
    bench.refused(InvalidModelFile, "there is no such file or folder", bench.path / "none.gguf")


@pytest.mark.parametrize("content", [b"", b"noise" * 100, b"GGUF" + bytes(20)])
def test_a_damaged_file_is_refused(bench, content):
    source = bench.path / "tiny.gguf"
    source.write_bytes(content)
    bench.refused(InvalidModelFile, "tiny.gguf", source)


def test_a_folder_that_is_no_model_is_refused(bench):
    (bench.path / "empty").mkdir()
    bench.refused(InvalidModelFile, "empty", bench.path / "empty")


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "ALL-MINILM-L6-V2", "Kept"])
def test_the_name_of_another_model_is_refused_before_it_spoils_the_catalogue(bench, name):
    bench.catalog.write_text(COMMENTS)
    source = embedder(bench.path / "tiny.gguf")
    bench.refused(
        InvalidRequest, f"'{name}' does not fit into the catalogue", source, model_id=name
    )


@pytest.mark.parametrize("other", ["a--b", "a-b", "A/C"])
@pytest.mark.parametrize("seed", [1, 2])
def test_models_with_different_ids_never_share_a_file(bench, other, seed):
    bench.add(embedder(bench.path / "tiny.gguf"), model_id="a/b")
    bench.add(embedder(bench.path / "other.gguf", seed=seed), model_id=other)
    paths = [bench.find(name).path for name in ("a/b", other)]
    assert len(set(paths)) == 2
    assert [sha256_of(path) for path in paths] == [
        bench.find(name).entry.sha256 for name in ("a/b", other)
    ]


def test_a_file_with_numbers_that_no_entry_may_have_is_refused(bench):
    key = b"bert.context_length" + struct.pack("<I", 4)
    source = edited(
        embedder(bench.path / "tiny.gguf"),
        key + struct.pack("<I", CONTEXT),
        key + struct.pack("<I", 2),
    )
    bench.refused(InvalidRequest, "max_input_tokens", source)


@pytest.mark.parametrize("content", ["schema = 2", "[[model]", "schema = 1\n[[model]]\nid = 5"])
def test_a_catalogue_of_the_user_that_cannot_be_read_is_left_as_it_is(bench, content):
    bench.catalog.write_text(content)
    bench.refused(InvalidCatalog, "models.toml", embedder(bench.path / "tiny.gguf"))
