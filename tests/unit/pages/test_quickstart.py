"""The examples of the first page: whole, for every client, and not open to a hostile name."""

import ast
import json
import shlex

import pytest

from appliance.pages.quickstart import KEY, snippets

URL, EMBED, RERANK = "https://models.example:8642", "a/embed", "a/rank"
CLIENTS = ["curl", "Python", "Node", "Cohere", "LangChain", "Open WebUI", "Continue"]


def texts(embed=EMBED, rerank=RERANK):
    return {each.name: each.text for each in snippets(URL, embed, rerank)}


def test_every_client_is_told_the_address_the_model_and_where_the_key_goes():
    assert list(texts()) == CLIENTS
    for name, text in texts().items():
        assert URL in text, name
        assert EMBED in text, name
        assert KEY in text, name


def test_without_a_model_that_ranks_nothing_is_said_of_ranking():
    for name, text in texts(rerank=None).items():
        assert "rerank" not in text.casefold(), name
    assert snippets(URL, None, RERANK) == []


@pytest.mark.parametrize("name", ["Python", "Cohere", "LangChain"])
def test_what_is_python_can_be_parsed(name):
    for rerank in (RERANK, None):
        assert ast.parse(texts(rerank=rerank)[name]).body


@pytest.mark.parametrize("model", [EMBED, "it's", 'a"b', "$(reboot)", "`x`", "a\\b", "a\nb"])
def test_whatever_a_model_is_called_it_stays_one_value(model):
    found = texts(embed=model)
    words = shlex.split(found["curl"].replace("\\\n", " "))
    assert json.loads(words[words.index("-d") + 1])["model"] == model
    values = [
        each.value
        for each in ast.walk(ast.parse(found["Python"]))
        if isinstance(each, ast.Constant)
    ]
    assert model in values


def test_ids_are_fit_for_a_page_and_unlike():
    ids = [each.id for each in snippets(URL, EMBED, RERANK)]
    assert len(set(ids)) == len(ids) <= 8, "site.css has rules for eight"
    assert all(each.replace("-", "").isalnum() for each in ids)
