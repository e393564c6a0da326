"""Devices: what is told of them is what this process may use."""

import pytest

from appliance import machine
from appliance.engine.device import Device
from appliance.engine.devices import native_devices


def test_the_processor_has_the_memory_of_its_container(monkeypatch):
    monkeypatch.setattr(machine, "memory_bytes", lambda: 400_000_000)
    monkeypatch.setattr(machine, "available_bytes", lambda: 150_000_000)
    found = [device for device in native_devices() if device.kind == "cpu"]
    assert [(device.memory, device.free) for device in found] == [(400_000_000, 150_000_000)]


@pytest.mark.parametrize(
    ("memory", "available", "expected"),
    [
        (500, 100, (500, 100)),
        (2000, 1500, (1000, 1000)),
        (500, 0, (500, 500)),
        (500, 900, (500, 500)),
    ],
)
def test_a_device_has_no_more_free_than_it_has(memory, available, expected):
    device = Device("CPU", "", "cpu", memory=1000, free=1000)
    bounded = device.bounded(memory=memory, available=available)
    assert (bounded.memory, bounded.free) == expected


def test_a_device_of_unknown_size_has_the_processes_memory():
    bounded = Device("CPU", "", "cpu", memory=0, free=0).bounded(memory=500, available=200)
    assert (bounded.memory, bounded.free) == (500, 200)
