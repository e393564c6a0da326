import hashlib
from decimal import Decimal

import pytest

from appliance.catalog import catalog
from appliance.core.errors import InvalidCatalog, ModelNotFound, WrongTask

GOOD = {
    "id": '"mine"',
    "task": '"embeddings"',
    "file": '"mine.gguf"',
    "max_input_tokens": "64",
    "pooling": '"mean"',
    "dimensions": "8",
    "price": '{ unit = "1M tokens", realtime = 0.008 }',
}
EMBED, RERANK = "sentence-transformers/all-MiniLM-L6-v2", "gigarouter/starter-rerank"


def table(**changes):
    """One [[model]]; a change of None leaves the key out."""
    lines = {**GOOD, **changes}
    return "[[model]]\n" + "".join(f"{k} = {v}\n" for k, v in lines.items() if v is not None)


@pytest.fixture
def load(tmp_path):
    def load(*tables, shipped=None, raw=None):
        own = tmp_path / "models.toml"
        if tables:
            own.write_text("schema = 1\n" + "".join(tables), encoding="utf-8")
        if raw is not None:
            own.write_bytes(raw)
        other = tmp_path / "shipped.toml"
        if shipped is not None:
            other.write_text("schema = 1\n" + shipped)
        return catalog.load(other, own, tmp_path / "models")

    return load


def refusal(load, *tables, **files):
    with pytest.raises(InvalidCatalog) as error:
        load(*tables, **files)
    return error.value.message


# -- what ships ---------------------------------------------------------------------------------


def test_what_ships_is_read_and_its_files_are_here(tmp_path):
    shipped = catalog.load(catalog.shipped_path(), tmp_path / "none.toml", tmp_path)
    built_in = [spec for spec in shipped if spec.entry.source is None]
    assert [spec.id for spec in built_in] == [EMBED, RERANK]
    for spec in built_in:
        content = spec.path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == spec.entry.sha256
        assert spec.entry.description
        assert spec.entry.license == "apache-2.0"
    assert len({(spec.path, spec.entry.pooling) for spec in built_in}) == 1
    assert repr(shipped) == "<Catalog [20 models]>"


HOSTED = {
    "cross-encoder/ms-marco-MiniLM-L6-v2": "rerank",
    "Qwen/Qwen3-Reranker-0.6B": "rerank",
    "BAAI/bge-reranker-base": "rerank",
    "BAAI/bge-small-en-v1.5": "embeddings",
    "Qwen/Qwen3-Embedding-0.6B": "embeddings",
    "ggml-org/Qwen3-Reranker-0.6B-Q8_0-GGUF": "rerank",
    "Alibaba-NLP/gte-reranker-modernbert-base": "rerank",
    "Xenova/all-MiniLM-L6-v2": "embeddings",
}
"""Ids of the hosted catalogue: the same client code runs hosted or local."""


@pytest.mark.parametrize(("name", "task"), HOSTED.items())
def test_hosted_ids_resolve(shipped, name, task):
    assert shipped.resolve(name, task).task == task


def test_what_can_be_pulled_says_what_it_is_and_what_was_not_confirmed(shipped):
    pulled = [spec for spec in shipped if spec.entry.source is not None]
    assert len(pulled) >= 15
    for spec in pulled:
        entry = spec.entry
        assert entry.description.endswith(".")
        assert entry.license
        assert entry.params > 1_000_000
        assert entry.architecture
        assert spec.path.name == f"{spec.id.replace('/', '--')}.gguf"
        pinned = (entry.source.revision, entry.source.bytes, entry.source.sha256)
        assert not entry.verified or None not in pinned
    assert sum(spec.entry.verified for spec in pulled) == 6
    assert [s.id for s in pulled if s.entry.template] == ["Qwen/Qwen3-Reranker-0.6B"]
    e5 = shipped.find("multilingual-e5-small")
    assert (e5.prompt("query"), e5.prompt("document")) == ("query: ", "passage: ")


# -- the user's own file ------------------------------------------------------------------------


def test_an_entry_of_the_user_stands_beside_what_ships(load):
    found = load(table(), shipped=table(id='"theirs"'))
    assert [spec.id for spec in found] == ["theirs", "mine"]


def test_an_entry_of_the_user_replaces_the_shipped_one_with_the_same_id(load, tmp_path):
    theirs = table(id='"same"', aliases='["old"]', file='"builtin:x.gguf"')
    found = load(table(id='"same"'), shipped=theirs)
    assert [spec.path for spec in found] == [tmp_path / "models/mine.gguf"]
    with pytest.raises(ModelNotFound):
        found.find("old")


def test_an_entry_of_the_user_without_a_file_changes_only_what_it_names(load):
    theirs = table(id='"same"', aliases='["old"]', matryoshka="[4]")
    own = '[[model]]\nid = "same"\naliases = ["new"]\nprice = { realtime = 1 }\n'
    found = load(own, shipped=theirs)
    spec = found.find("new")
    assert (spec.id, spec.tariff.realtime, spec.tariff.unit) == ("same", 1, "1M tokens")
    assert (spec.entry.matryoshka, spec.path.name) == ((4,), "mine.gguf")
    with pytest.raises(ModelNotFound):
        found.find("old")


def test_an_entry_of_the_user_with_a_file_keeps_nothing_of_the_shipped_one(load):
    theirs = table(id='"same"', sha256=f'"{"a" * 64}"', matryoshka="[4]")
    [spec] = load(table(id='"same"'), shipped=theirs)
    assert (spec.entry.sha256, spec.entry.matryoshka) == (None, ())


def test_an_entry_that_changes_a_shipped_one_wrongly_is_the_users_fault(load, tmp_path):
    own = '[[model]]\nid = "same"\nprice = { realtime = "dear" }\n'
    message = refusal(load, own, shipped=table(id='"same"'))
    assert message.startswith(f"{tmp_path / 'models.toml'}: model same: price.realtime:")


# -- where the hub keeps a model ----------------------------------------------------------------

SOURCE = {
    "repo": '"owner/name-GGUF"',
    "file": '"sub/name.gguf"',
    "revision": f'"{"c" * 40}"',
    "bytes": "25008064",
    "sha256": f'"{"a" * 64}"',
}


def sourced(*, entry=None, **changes):
    """One [[model]] that is fetched; a change of None leaves the key of its source out."""
    lines = {**SOURCE, **changes}
    source = ", ".join(f"{key} = {value}" for key, value in lines.items() if value is not None)
    return table(**{"id": '"owner/name"', "file": None, **(entry or {})}, source=f"{{ {source} }}")


def test_a_model_of_the_hub_has_its_file_named_for_its_id_and_its_hash(load, tmp_path):
    [spec] = load(sourced())
    assert spec.path == tmp_path / "models/owner--name.gguf"
    assert spec.entry.sha256 == "a" * 64
    assert spec.entry.verified


def test_the_hash_of_weights_to_convert_is_not_that_of_the_file_here(load):
    [spec] = load(sourced(file=None, format='"safetensors"'))
    assert spec.entry.sha256 is None
    assert spec.path.name == "owner--name.gguf"


@pytest.mark.parametrize("key", ["revision", "bytes", "sha256"])
def test_what_is_not_known_of_a_source_must_be_admitted(load, key):
    message = refusal(load, sourced(**{key: None}))
    assert "model owner/name: verified: needs revision, bytes and sha256" in message
    [spec] = load(sourced(entry={"verified": "false"}, **{key: None}))
    assert not spec.entry.verified


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"repo": '"name"'}, "source.repo: Expected `str` matching"),
        ({"repo": '"../../name"'}, "source.repo: Expected `str` matching"),
        ({"repo": '"owner/name?x=1"'}, "source.repo: Expected `str` matching"),
        ({"repo": '"owner/name\\n"'}, "source.repo: Expected `str` matching"),
        ({"file": None}, "source.file: None is no path"),
        ({"file": '"../name.gguf"'}, "source.file: '../name.gguf' is no path"),
        ({"file": '"/name.gguf"'}, "source.file: '/name.gguf' is no path"),
        ({"file": '"a//b.gguf"'}, "source.file: 'a//b.gguf' is no path"),
        ({"file": "'a\\b.gguf'"}, "source.file: "),
        ({"format": '"safetensors"'}, "source.file: goes with GGUF"),
        ({"format": '"onnx"'}, "source.format: Invalid enum value 'onnx'"),
        ({"revision": '"main"'}, "source.revision: Expected `str` matching"),
        ({"bytes": "0"}, "source.bytes: Expected `int` >= 1"),
        ({"sha256": '"AB"'}, "source.sha256: Expected `str` matching"),
        (
            {"entry": {"sha256": f'"{"b" * 64}"'}},
            f"sha256: is {'b' * 64}, and in source {'a' * 64}",
        ),
        ({"mirror": '"x"'}, "source: Object contains unknown field `mirror`"),
    ],
)
def test_a_wrong_source_is_refused_with_file_model_and_key(load, tmp_path, changes, where):
    message = refusal(load, sourced(**changes))
    assert message.startswith(f"{tmp_path / 'models.toml'}: model owner/name: {where}")


def test_no_file_of_the_user_is_no_error(load):
    assert list(load()) == []


def test_a_builtin_file_lies_in_the_package_and_any_other_among_the_users_models(load, tmp_path):
    found = load(
        table(), table(id='"b"', file='"builtin:b.gguf"'), table(id='"c"', file='"sub/c.gguf"')
    )
    assert [spec.path for spec in found] == [
        tmp_path / "models/mine.gguf",
        catalog.STARTER / "b.gguf",
        tmp_path / "models/sub/c.gguf",
    ]


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"id": None}, "model number 1: id: is missing or no text"),
        ({"id": '"a b"'}, "model a b: id:"),
        ({"id": '""'}, "model : id:"),
        ({"id": "5"}, "model number 1: id: is missing or no text"),
        ({"task": '"chat"'}, "model mine: task: Invalid enum value 'chat'"),
        ({"file": None}, "model mine: entry: Object missing required field `file`"),
        ({"file": '""'}, "model mine: file:"),
        ({"pooling": '"max"'}, "model mine: pooling: Invalid enum value 'max'"),
        ({"max_input_tokens": "3"}, "model mine: max_input_tokens:"),
        ({"max_input_tokens": "512.0"}, "model mine: max_input_tokens:"),
        ({"dimensions": "0"}, "model mine: dimensions:"),
        ({"dimensions": None}, "model mine: dimensions: is missing"),
        ({"matryoshka": "[8]"}, "model mine: matryoshka: sizes must be smaller"),
        ({"matryoshka": "[0]"}, "model mine: matryoshka[0]:"),
        ({"aliases": '["a b"]'}, "model mine: aliases: 'a b' must look like"),
        ({"aliases": '"a"'}, "model mine: aliases:"),
        ({"sha256": '"AB"'}, "model mine: sha256:"),
        ({"preload": '"yes"'}, "model mine: preload:"),
        ({"colour": "1"}, "model mine: entry: Object contains unknown field `colour`"),
        ({"price": None}, "model mine: entry: Object missing required field `price`"),
        ({"price": "3"}, "model mine: price: Expected `object`"),
        ({"price": '{ unit = "1M tokens" }'}, "model mine: price: Object missing required field"),
        (
            {"price": '{ unit = "1M tokens", realtime = 1, x = 1 }'},
            "model mine: price: Object contains unknown",
        ),
        ({"price": '{ unit = "1k documents", realtime = 1 }'}, "model mine: price.unit:"),
        ({"price": '{ unit = "1M tokens", realtime = true }'}, "model mine: price.realtime:"),
        (
            {"price": '{ unit = "1M tokens", realtime = -1 }'},
            "model mine: price.realtime: must be between",
        ),
        (
            {"price": '{ unit = "1M tokens", realtime = nan }'},
            "model mine: price.realtime: must be between",
        ),
        (
            {"price": '{ unit = "1M tokens", realtime = 1, batch = 1e-13 }'},
            "model mine: price.batch: is finer",
        ),
        ({"task": '"rerank"'}, "model mine: scores: is missing"),
    ],
)
def test_a_wrong_entry_is_refused_with_file_model_and_key(load, tmp_path, changes, where):
    message = refusal(load, table(**changes))
    assert message.startswith(f"{tmp_path / 'models.toml'}: {where}")
    assert not message.endswith(": ")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"", "schema: must be 1"),
        (b"schema = 2", "schema: must be 1"),
        (b'schema = "1"', "schema: must be 1"),
        (b"schema = 1\ncolour = 3", "colour: is not a key of a catalogue"),
        (b"schema = 1\nmodel = 3", "model: must be at most 10000 [[model]] tables"),
        (b"schema = 1\nmodel = [3]", "model number 1: id: is missing or no text"),
        (b"schema = 1\n[model]\nid = 3", "model: must be at most"),
        (b"schema = 1\n[[model]\n", "file: Expected ']]'"),
        (b"schema = 1 # \xff", "file: 'utf-8' codec"),
        (b"schema = 1\nmodel = " + b"[" * 5000, "file: "),
    ],
)
def test_a_wrong_file_is_refused_by_name(load, tmp_path, content, where):
    assert refusal(load, raw=content).startswith(f"{tmp_path / 'models.toml'}: {where}")


def test_a_wrong_shipped_file_is_named_as_such(load, tmp_path):
    message = refusal(load, table(), shipped=table(pooling='"max"'))
    assert message.startswith(f"{tmp_path / 'shipped.toml'}: model mine: pooling:")


@pytest.mark.parametrize(
    "name",
    [
        "../x.gguf",
        "a/../../x.gguf",
        "/etc/passwd",
        "builtin:../catalog/spec.py",
        "builtin:/etc/passwd",
        "..",
    ],
)
def test_a_file_outside_of_its_folder_is_refused(load, name):
    assert f"model mine: file: '{name}' points outside" in refusal(load, table(file=f'"{name}"'))


def test_a_link_to_a_file_outside_is_refused(load, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mine.gguf").symlink_to("/etc/passwd")
    assert "points outside models/" in refusal(load, table())


def test_a_control_character_in_a_file_name_is_refused(load):
    assert "file: 'a\\x00b' holds a control character" in refusal(load, table(file=r'"a\u0000b"'))


def test_the_same_id_twice_in_one_file_is_refused(load):
    assert "model mine: id: stands twice in this file" in refusal(load, table(), table())


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"aliases": '["x"]'}, {"id": '"b"', "aliases": '["x"]'}),
        ({"aliases": '["x"]'}, {"id": '"b"', "aliases": '["X"]'}),
        ({"aliases": '["b"]'}, {"id": '"b"'}),
        ({}, {"id": '"MINE"'}),
        ({}, {"id": '"b"', "aliases": '["Mine"]'}),
    ],
)
def test_no_two_models_share_a_name_in_any_letter_case(load, one, two):
    assert "aliases: " in refusal(load, table(**one), table(**two))
    assert "aliases: " in refusal(load, table(**two), shipped=table(**one))


def test_an_alias_may_repeat_its_own_models_id(load):
    assert load(table(aliases='["mine", "Mine"]')).find("MINE").id == "mine"


def test_too_many_models_are_refused(load, monkeypatch):
    monkeypatch.setattr(catalog, "MODELS_MAX", 2)
    tables = [table(id=f'"m{n}"') for n in range(3)]
    assert len(list(load(*tables[:2]))) == 2
    assert "model: must be at most 2 [[model]] tables" in refusal(load, *tables)


# -- prices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ("0.008", "0.008"),
        ("1", "1"),
        ("0", "0"),
        ("1e-4", "0.0001"),
        ("0.1", "0.1"),
        ('"0.3"', "0.3"),
        ("1_000", "1000"),
    ],
)
def test_a_price_is_exactly_what_the_operator_wrote(load, written, exact):
    price = f'{{ unit = "1M tokens", realtime = {written}, batch = {written} }}'
    [spec] = load(table(price=price))
    assert (spec.tariff.realtime, spec.tariff.batch) == (Decimal(exact), Decimal(exact))


# -- finding ------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path):
    return catalog.load(catalog.shipped_path(), tmp_path / "none.toml", tmp_path)


@pytest.mark.parametrize(
    "name", [EMBED, EMBED.upper(), "all-minilm-l6-v2", "ALL-MiniLM-L6-v2", "All-Minilm-L6-V2"]
)
def test_a_model_is_found_by_id_and_alias_in_any_letter_case(shipped, name):
    assert shipped.find(name).id == EMBED


@pytest.mark.parametrize(
    "name", ["all-minilm-l6-v3", "MiniLM-L6-v2", "sentence-transformers/all-minilm-l6"]
)
def test_a_name_that_is_nearly_right_is_told_the_right_one(shipped, name):
    with pytest.raises(ModelNotFound, match=f"Did you mean .*{EMBED}"):
        shipped.find(name)


def test_a_name_like_no_other_is_told_where_the_names_are(shipped):
    with pytest.raises(ModelNotFound, match="GET /v1/models lists them") as error:
        shipped.find("dall-e")
    assert error.value.param == "model"


def test_a_very_long_name_is_answered_in_short(shipped):
    with pytest.raises(ModelNotFound) as error:
        shipped.find("x" * 500_000)
    assert len(error.value.message) < 400


def test_a_model_is_resolved_for_its_own_task_alone(shipped):
    assert shipped.resolve(EMBED, "embeddings").id == EMBED
    with pytest.raises(WrongTask, match="is for rerank, not for embeddings"):
        shipped.resolve(RERANK, "embeddings")


def test_near_ids_are_distinct_and_those_on_this_machine_come_first(load, tmp_path):
    def similar(number, *aliases):
        named = str([f"alike-{number}{alias}" for alias in aliases]).replace("'", '"')
        return table(id=f'"alike-{number}"', file=f'"{number}.gguf"', aliases=named)

    found = load(similar(1, "a", "b", "c", "d"), similar(2, "a"), similar(3), similar(4))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "4.gguf").write_bytes(b"")
    (tmp_path / "models" / "3.gguf").write_bytes(b"")
    with pytest.raises(ModelNotFound) as refusal:
        found.find("alike-1x")
    near = refusal.value.message.partition("Did you mean ")[2].partition("?")[0].split(", ")
    assert len(near) == len(set(near)) == 3
    assert set(near[:2]) == {"alike-3", "alike-4"}
    assert near[2] == "alike-1"
