"""The user's `models.toml` is always a file that can be read and changed again."""

import os
import tomllib

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.catalog.catalog import load, shipped_path
from appliance.catalog.entry_edit import EntryEdit
from appliance.catalog.user_catalog import DoesNotFit, UserCatalog, put, remove
from appliance.core.errors import InvalidCatalog, InvalidRequest

RUNS = int(os.environ.get("CATALOG_RUNS", "60"))
"""Examples of the property; the oldest and newest tomlkit are tried with the same test:
`pip install --target DIR tomlkit==0.13.0`, then PYTHONPATH=DIR pytest and this file."""
SHIPPED = "sentence-transformers/all-MiniLM-L6-v2"
IDS = ("a", "b", "owner/c")


def entry(name, **changes):
    price = tomlkit.inline_table()
    price.update({"unit": "1M tokens", "realtime": 0.5})
    return {
        "id": name,
        "task": "embeddings",
        "file": f"{name.replace('/', '+')}.gguf",
        "dimensions": 8,
        "max_input_tokens": 64,
        "pooling": "mean",
        "price": price,
        **changes,
    }


def own(folder):
    return UserCatalog(folder / "models.toml", folder / "models")


def change(catalog, how):
    with catalog.draft(how):
        pass


def add(catalog, name, **changes):
    change(catalog, lambda document: put(document, entry(name, **changes)))


def drop(catalog, name):
    change(catalog, lambda document: remove(document, name))


BEGINNINGS = {
    "no file": None,
    "only the schema": "schema = 1\n",
    "an empty list": "model = []\n# mine\nschema = 1\n",
    "a list after it": "schema = 1\nmodel = []  # none yet\n",
    "a list of tables": (
        'schema = 1\nmodel = [{ id = "a", task = "embeddings", file = "a.gguf", dimensions = 8, '
        'max_input_tokens = 64, pooling = "mean", price = { unit = "1M tokens", realtime = 1.0 } }]'
    ),
    "tables below tables": (
        '# mine\nschema = 1\n\n[[model]]  # first\nid = "a"\ntask = "embeddings"\nfile = "a.gguf"\n'
        'dimensions = 8\nmax_input_tokens = 64\npooling = "mean"\n\n  [model.price]\n'
        '  unit = "1M tokens"\n  realtime = 1.0  # dear\n\n# the shipped one\n[[model]]\n'
        f'id = "{SHIPPED}"\nmax_input_tokens = 512\n'
    ),
    "Windows' line ends": '# mine\r\nschema = 1\r\n\r\n[[model]]\r\nid = "gigarouter/starter-rerank"'
    "\r\npreload = false\r\n",
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(IDS)),
        st.tuples(st.just("drop"), st.sampled_from(IDS)),
        st.tuples(st.just("price"), st.sampled_from((*IDS, SHIPPED))),
        st.tuples(st.just("alias"), st.sampled_from((*IDS, SHIPPED))),
        st.tuples(st.just("refused"), st.sampled_from(IDS)),
    ),
    max_size=12,
)


@settings(max_examples=RUNS, deadline=None)
@given(beginning=st.sampled_from(sorted(BEGINNINGS)), steps=STEPS)
def test_whatever_is_done_the_file_can_be_read_and_changed_again(
    tmp_path_factory, beginning, steps
):
    catalog = own(tmp_path_factory.mktemp("own"))
    if BEGINNINGS[beginning] is not None:
        catalog.path.write_bytes(BEGINNINGS[beginning].encode())
    prices = {s.id: str(s.tariff.realtime) for s in catalog.current()}
    aliases = {spec.id: spec.entry.aliases for spec in catalog.current()}
    for number, (step, name) in enumerate(steps):
        if step == "add":
            add(catalog, name)
            prices[name], aliases[name] = "0.5", ()
        elif step == "drop":
            drop(catalog, name)
            prices.pop(name, None)
            aliases.pop(name, None)
        elif name in prices and step == "price":
            EntryEdit(catalog).set_price(name, realtime=f"0.{number + 1}", batch=None)
            prices[name] = f"0.{number + 1}"
        elif name in prices and step == "alias":
            EntryEdit(catalog).set_aliases(name, [f"{name.replace('/', '-')}-{number}"])
            aliases[name] = (f"{name.replace('/', '-')}-{number}",)
        elif step == "refused":
            with pytest.raises(DoesNotFit):
                add(catalog, name, dimensions=0)
        else:
            continue
        now = load(shipped_path(), catalog.path, catalog.models)
        assert {spec.id: str(spec.tariff.realtime) for spec in now} == prices
        assert {spec.id: spec.entry.aliases for spec in now} == aliases
        if step != "refused":
            assert "model = []" not in catalog.path.read_text()
    for name in [name for name in IDS if name in prices]:
        drop(catalog, name)
    add(catalog, "last")
    assert [spec.id for spec in catalog.current()][-1] == "last"


@pytest.mark.parametrize("beginning", ["an empty list", "a list after it"])
def test_an_empty_list_that_an_older_version_left_is_repaired_at_the_next_change(
    tmp_path, beginning
):
    catalog = own(tmp_path)
    catalog.path.write_text(BEGINNINGS[beginning])
    EntryEdit(catalog).set_price(SHIPPED, realtime="0.25", batch=None)
    text = catalog.path.read_text()
    assert "model = []" not in text
    assert text.count("[[model]]") == 1
    assert str(catalog.current().find(SHIPPED).tariff.realtime) == "0.25"


def test_the_last_model_can_be_removed_and_another_be_added(tmp_path):
    catalog = own(tmp_path)
    for _ in range(3):
        add(catalog, "a")
        drop(catalog, "a")
    assert catalog.path.read_text().startswith("# Your own models")
    assert tomllib.loads(catalog.path.read_text()) == {"schema": 1}


def test_comments_stay_where_an_entry_is_replaced(tmp_path):
    catalog = own(tmp_path)
    catalog.path.write_text(BEGINNINGS["tables below tables"])
    add(catalog, "a")
    text = catalog.path.read_text()
    for comment in ("# mine", "# first", "# the shipped one"):
        assert comment in text
    assert text.index('id = "a"') < text.index(SHIPPED)
    drop(catalog, "a")
    for comment in ("# mine", "# the shipped one"):
        assert comment in catalog.path.read_text()


def test_a_fault_that_is_there_already_is_not_blamed_on_the_change(tmp_path):
    catalog = own(tmp_path)
    before = f'schema = 1\n\n[[model]]\nid = "{SHIPPED}"\nprice = {{ realtime = "much" }}\n'
    catalog.path.write_text(before)
    with pytest.raises(InvalidCatalog) as caught:
        EntryEdit(catalog).set_aliases("gigarouter/starter-rerank", ["x"])
    assert caught.value.message.startswith(f"{catalog.path}: model {SHIPPED}: price.realtime: ")
    assert "(line 5). Mend it there" in caught.value.message
    assert catalog.path.read_text() == before


def test_a_refused_change_names_no_file_of_ours(tmp_path):
    with pytest.raises(InvalidRequest) as caught:
        EntryEdit(own(tmp_path)).set_aliases(SHIPPED, ["starter-rerank"])
    assert "'starter-rerank' is" in caught.value.message
    assert "draft" not in caught.value.message
    assert "Mend" not in caught.value.message


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"schema = 1\n[[model]\n", "(at line 2"),
        (b"\xff", "utf-8"),
        (b'schema = 1\n[[model]]\nid = "x"\n# no more\n\ncolour = 1\n', "(line 3)"),
        (b'schema = 1\n\n[[model]]\nid = "a"\n\n[[model]]\nid = "a"\n', "stands twice"),
    ],
)
def test_a_fault_is_named_with_its_line_and_its_remedy(tmp_path, raw, said):
    catalog = own(tmp_path)
    catalog.path.write_bytes(raw)
    with pytest.raises(InvalidCatalog) as caught:
        catalog.current()
    assert said in caught.value.message
    assert caught.value.message.startswith(str(catalog.path))
    assert caught.value.message.endswith("Mend it there, or move the file away.")


@pytest.mark.parametrize("kind", ["a folder", "a pipe"])
def test_something_else_in_the_files_place_is_a_fault_and_nobody_waits(tmp_path, kind):
    catalog = own(tmp_path)
    catalog.path.mkdir() if kind == "a folder" else os.mkfifo(catalog.path)
    with pytest.raises(InvalidCatalog, match=f"it is {kind}, and no file"):
        catalog.current()
