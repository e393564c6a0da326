"""When the catalogue changes, what no model names any more goes, as soon as no call uses it."""

import asyncio

import msgspec
import pytest

from appliance.core.errors import ModelWarming
from tests.unit.scheduler.test_residency import opened as opened  # noqa: PLC0414 - a fixture
from tests.unit.scheduler.test_residency import until


def replaced(bench, spec, name="next.gguf"):
    """The same model with another file."""
    new = bench.spec(spec.id, file=name)
    return msgspec.structs.replace(new, entry=msgspec.structs.replace(new.entry, sha256="0" * 64))


def test_a_replaced_model_drains_while_the_new_one_is_loaded(opened):
    async def story():
        async with opened() as bench:
            residency, old = bench.residency, bench.spec()
            new = replaced(bench, old)
            residency.keep_only([old])
            await residency.wait(old, wait_s=60)
            with residency.lease(old):
                residency.keep_only([new])
                assert residency.entry(old).state == "leaving"
                assert not bench.loader.backends[0].closed
                with pytest.raises(ModelWarming):  # the next try finds the new file
                    await residency.wait(old, wait_s=60)
                await residency.wait(new, wait_s=60)
                assert len(residency.engines()) == 2
            await until(lambda: bench.loader.backends[0].closed)
            assert residency.entry(old) is None
            assert [engine.name for engine in residency.engines()] == ["m"]
            # Its memory is free once the weights are closed, not before.
            await until(lambda: residency.pool.freeing_bytes == 0)
            assert residency.pool.taken_bytes == residency.entry(new).bytes

    asyncio.run(story())


def test_models_that_share_weights_go_on_sharing_until_the_last_of_them_is_gone(opened):
    async def story():
        async with opened() as bench:
            residency = bench.residency
            one, two = bench.spec("one"), bench.spec("two")
            residency.keep_only([one, two])
            engine = await residency.wait(one, wait_s=60)
            residency.keep_only([two, replaced(bench, one)])
            assert await residency.wait(two, wait_s=60) is engine
            assert bench.loader.models_asked == ["one"]
            residency.keep_only([])
            await until(lambda: bench.loader.backends[0].closed)
            assert residency.entry(two) is None

    asyncio.run(story())


def test_a_pin_is_the_models_and_goes_over_to_its_new_file(opened):
    async def story():
        async with opened() as bench:
            residency, old = bench.residency, bench.spec()
            new = replaced(bench, old)
            residency.keep_only([old])
            residency.pin(old, on=True)
            await residency.wait(old, wait_s=60)
            residency.keep_only([new])
            assert residency.is_pinned(new)
            assert not residency.is_pinned(old)

    asyncio.run(story())


def test_a_call_from_before_the_change_leaves_nothing_behind(opened):
    async def story():
        async with opened() as bench:
            residency, old = bench.residency, bench.spec()
            residency.keep_only([old])
            with residency.lease(old):
                residency.keep_only([replaced(bench, old)])
                await residency.encoder(old)
                await residency.wait(old, wait_s=60)
                assert residency.is_loaded(old)
            await until(lambda: bench.loader.backends[0].closed)
            assert residency.entry(old) is None
            assert residency._encoders == {}

    asyncio.run(story())


def test_a_change_of_names_and_prices_frees_nothing(opened):
    async def story():
        async with opened() as bench:
            residency, spec = bench.residency, bench.spec()
            residency.keep_only([spec])
            engine = await residency.wait(spec, wait_s=60)
            entry = msgspec.structs.replace(spec.entry, aliases=("another",))
            residency.keep_only([msgspec.structs.replace(spec, entry=entry)])
            assert residency.ready(spec) is engine

    asyncio.run(story())
