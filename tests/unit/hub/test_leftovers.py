"""What downloads left behind is removed once nobody went on with it for long, and nothing else is."""

import os

from appliance.hub.leftovers import KEPT_DAYS, US_PER_DAY, sweep

DAY_S = 86_400
NOW_S = 2_000_000_000
DIGEST = "ab" * 32
OURS = (
    f"{DIGEST}.part",
    f"{DIGEST}.header",
    "0123456789ab-0123456789ab.converted",
    "owner--model.gguf.arrived",
)
OTHERS = (
    "model.gguf",
    "model.gguf.part",
    "model.gguf.verdict.json",
    "digests.json",
    "digests.json.part",
    f"{DIGEST}.gguf",
    f"{DIGEST[:-1]}.part",
    "my.part",
)


def aged(path, days):
    os.utime(path, (NOW_S - days * DAY_S,) * 2)


def test_parts_that_nobody_went_on_with_are_removed_and_nothing_else(tmp_path):
    for name in (*OURS, *OTHERS):
        (tmp_path / name).write_bytes(b"x")
        aged(tmp_path / name, KEPT_DAYS + 1)
    for name in ("0123456789ab-0123456789ab.parts", "header-xyz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x")
        aged(tmp_path / name / "model.safetensors", KEPT_DAYS + 1)
        aged(tmp_path / name, KEPT_DAYS + 1)
    sweep(tmp_path, now_us=NOW_S * 1_000_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(OTHERS)


def test_parts_that_somebody_may_go_on_with_stay(tmp_path):
    for name in OURS:
        (tmp_path / name).write_bytes(b"x")
        aged(tmp_path / name, KEPT_DAYS - 1)
    folder = tmp_path / "0123456789ab-0123456789ab.parts"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x")
    aged(folder / "model.safetensors", 1)
    aged(folder, KEPT_DAYS + 1)
    sweep(tmp_path, now_us=NOW_S * 1_000_000)
    assert len(list(tmp_path.iterdir())) == len(OURS) + 1
    assert (folder / "model.safetensors").exists()


def test_a_folder_that_is_not_there_or_a_clock_that_is_wrong_removes_nothing(tmp_path):
    sweep(tmp_path / "none", now_us=NOW_S * 1_000_000)
    (tmp_path / OURS[0]).write_bytes(b"x")
    aged(tmp_path / OURS[0], 0)
    sweep(tmp_path, now_us=NOW_S * 1_000_000 - 100 * US_PER_DAY)
    assert (tmp_path / OURS[0]).exists()
