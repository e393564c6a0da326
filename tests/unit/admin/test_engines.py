"""What an operator is told of models in memory: who shares weights, and what computes them."""

import asyncio

from appliance import machine
from appliance.wire.engines import PinOrder
from tests.appliance import bench
from tests.server import EMBED

RERANK = "gigarouter/starter-rerank"


def test_models_that_share_weights_name_each_other_and_are_pinned_together(tmp_path):
    async def run():
        async with asyncio.timeout(120), bench(tmp_path / "data") as on:
            engines = on.appliance.admin.engines
            [view] = (await engines.all()).data
            assert {view.model, *view.also} == {EMBED, RERANK}
            assert (await engines.all()).cores == machine.cores()
            assert (await engines.pin(PinOrder(RERANK))).pinned
            [view] = (await engines.all()).data
            assert view.pinned

    asyncio.run(run())
