"""A name that another model has is refused with its owner, whichever of the two comes first."""

import pytest

from appliance.catalog.entry_edit import EntryEdit
from appliance.core.errors import InvalidRequest
from tests.unit.catalog.test_user_catalog import SHIPPED, add, own


@pytest.mark.parametrize(("wants", "has"), [("a", "b"), ("b", "a"), ("a", SHIPPED), (SHIPPED, "b")])
@pytest.mark.parametrize("is_alias", [True, False])
def test_a_name_that_is_taken_is_refused_with_its_owner(tmp_path, wants, has, is_alias):
    catalog = own(tmp_path)
    add(catalog, "a")
    add(catalog, "b")
    if is_alias:
        EntryEdit(catalog).set_aliases(has, ["theirs"])
    name = "theirs" if is_alias else has
    before = catalog.path.read_text()
    with pytest.raises(InvalidRequest, match=f"'{name}' is a name of {has}") as refused:
        EntryEdit(catalog).set_aliases(wants, [name])
    assert refused.value.param == "aliases"
    assert catalog.path.read_text() == before


def test_a_model_may_be_given_the_names_that_it_has(tmp_path):
    catalog = own(tmp_path)
    add(catalog, "a")
    for _ in range(2):
        EntryEdit(catalog).set_aliases("a", ["mine"])
    assert catalog.current().find("mine").id == "a"
