"""Which model a call means: by its name, or by none."""

import asyncio

import pytest

from appliance.core.errors import InvalidRequest, ModelNotFound, WrongTask
from tests.appliance import bench
from tests.server import EMBED, RERANK

SECOND = """\
schema = 1
[[model]]
id = "second/embedder"
task = "embeddings"
file = "second.gguf"
pooling = "mean"
dimensions = 384
max_input_tokens = 256
price = { unit = "1M tokens", realtime = 0.01 }
"""


def looked_up(tmp_path, story, *, second=False, **settings):
    async def run():
        if second:
            tmp_path.mkdir(exist_ok=True)
            (tmp_path / "models.toml").write_text(SECOND)
            (tmp_path / "models").mkdir(exist_ok=True)
            (tmp_path / "models" / "second.gguf").write_bytes(b"GGUF")
        async with bench(tmp_path, preload=False, **settings) as it:
            key = it.books.keyring.get((await it.mint()).id)
            bound = it.books.keyring.get((await it.mint(models=[RERANK])).id)
            story(it.appliance.pipeline.models, key, bound)
            if second:
                both = await it.mint(models=["second/embedder", EMBED])
                key = it.books.keyring.get(both.id)
                found = it.appliance.pipeline.models.resolve(key, None, "embeddings")
                assert found.id == "second/embedder", "the first of the key's own list"

    asyncio.run(run())


def test_without_a_name_the_only_model_of_the_task_is_meant(tmp_path):
    def story(models, key, bound):
        assert models.resolve(key, None, "embeddings").id == EMBED
        assert models.resolve(key, None, "rerank").id == RERANK
        assert models.default("embeddings").id == EMBED
        assert models.resolve(key, EMBED.upper(), "embeddings").id == EMBED
        with pytest.raises(WrongTask):
            models.resolve(key, EMBED, "rerank")

    looked_up(tmp_path, story)


def test_a_key_that_is_bound_to_models_knows_of_no_others(tmp_path):
    def story(models, key, bound):
        assert models.resolve(bound, None, "rerank").id == RERANK
        with pytest.raises(InvalidRequest, match="model is missing, and this server has none"):
            models.resolve(bound, None, "embeddings")
        for ask in (models.find, lambda key, name: models.resolve(key, name, "embeddings")):
            with pytest.raises(ModelNotFound) as unknown:
                ask(bound, EMBED)
            assert f"mean {EMBED}" not in unknown.value.message

    looked_up(tmp_path, story)


def test_of_several_models_the_operators_choice_is_meant_else_a_name_is_asked_for(tmp_path):
    def unclear(models, key, bound):
        with pytest.raises(InvalidRequest, match="second/embedder") as refused:
            models.resolve(key, None, "embeddings")
        assert EMBED in refused.value.message
        assert refused.value.param == "model"

    def chosen(models, key, bound):
        assert models.resolve(key, None, "embeddings").id == "second/embedder"
        assert models.resolve(key, None, "rerank").id == RERANK

    looked_up(tmp_path / "a", unclear, second=True)
    looked_up(tmp_path / "b", chosen, second=True, default_models=("none/such", "SECOND/embedder"))
