import asyncio

from appliance.accounts.refused_access import ADDRESSES_MAX, OTHERS, RefusedAccess


def counted():
    told = []
    return RefusedAccess(lambda address, reasons: told.append((address, reasons))), told


def test_refusals_are_told_once_for_each_address_with_their_reasons():
    refused, told = counted()
    for _ in range(1_000):
        refused.count("192.0.2.1", "invalid_api_key")
    refused.count("192.0.2.1", "missing_api_key")
    refused.count("2001:db8::1", "invalid_api_key")
    refused.count("2001:db8::2", "invalid_api_key")
    refused.flush()
    refused.flush()
    assert told == [
        ("192.0.2.1", {"invalid_api_key": 1_000, "missing_api_key": 1}),
        ("2001:db8::/64", {"invalid_api_key": 2}),
    ]


def test_a_flood_from_everywhere_leaves_a_bounded_number_of_lines():
    refused, told = counted()
    for number in range(5_000):
        refused.count(f"10.0.{number // 250}.{number % 250}", "invalid_api_key")
    refused.flush()
    assert len(told) == ADDRESSES_MAX + 1
    assert told[-1] == (OTHERS, {"invalid_api_key": 5_000 - ADDRESSES_MAX})


def test_what_was_counted_is_told_when_the_server_ends():
    async def story():
        refused, told = counted()
        task = asyncio.create_task(refused.run())
        await asyncio.sleep(0)
        refused.count("192.0.2.1", "invalid_api_key")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert told == [("192.0.2.1", {"invalid_api_key": 1})]

    asyncio.run(story())
