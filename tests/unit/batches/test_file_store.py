"""Files beside slow disks, callers that go away, and a disk that has not what the books say."""

import asyncio
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from appliance.api import request
from appliance.batches.file_store import BUFFER_BYTES, FileStore, Upload
from appliance.core.clock import SystemClock
from appliance.core.limits import Limits
from tests.unit.batches.test_batch_run import play


def test_time_is_over_only_while_a_piece_is_waited_for(tmp_path, monkeypatch):
    write = Upload._write

    def slow(self, content):
        time.sleep(0.8)  # longer than the whole upload may take
        write(self, content)

    monkeypatch.setattr(Upload, "_write", slow)
    monkeypatch.setattr(request, "UPLOAD_BYTES_PER_S", 10**12)

    async def story(at):
        answer = await at.upload(b"x" * (BUFFER_BYTES + 1))
        assert answer.status_code in (200, 400), answer.text
        assert len(list((tmp_path / "data" / "files").iterdir())) == (answer.status_code == 200)

    play(tmp_path, story, limits=replace(Limits(), body_seconds_max=0.5))


@pytest.mark.parametrize("step", ["_write", "_sync"])
def test_a_caller_that_is_cancelled_waits_for_the_disk_and_nothing_stays(
    tmp_path, monkeypatch, step
):
    began, may_end = threading.Event(), threading.Event()
    closed = []
    original = getattr(Upload, step)

    def slow(self, *content):
        began.set()
        may_end.wait(10)
        closed.append(self._file.closed)
        original(self, *content)

    monkeypatch.setattr(Upload, step, slow)

    async def story(at):
        folder = tmp_path / "data" / "files"
        store = FileStore(folder, at.on.books.writer, SystemClock(), Limits())
        key = SimpleNamespace(id=at.key_id)

        async def send():
            async with store.arriving(key, await store.used(key)) as (file_id, upload):
                await upload.write(b"some")
                await store.keep(key, file_id, upload, "x")

        sending = asyncio.create_task(send())
        await asyncio.to_thread(began.wait, 10)
        sending.cancel()
        await asyncio.sleep(0.05)
        assert not sending.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert closed == [False]
        on_disk = {path.name for path in folder.iterdir()}
        in_books, _ = await store.page(key, purpose=None, after=None, limit=10)
        assert on_disk == {file.id for file in in_books}

    play(tmp_path, story)


def test_a_file_is_removed_on_a_thread_if_its_upload_fails(tmp_path, monkeypatch):
    threads = []
    end = Upload.close

    def close(self):
        threads.append(threading.current_thread())
        end(self)

    monkeypatch.setattr(Upload, "close", close)

    async def story(at):
        assert (await at.upload(b"x" * 20)).status_code == 413
        assert len(threads) == 1
        assert threads[0] is not threading.main_thread()
        assert list((tmp_path / "data" / "files").iterdir()) == []

    play(tmp_path, story, limits=replace(Limits(), file_bytes_max=10))


@pytest.mark.parametrize("on_disk", [b"", b"abc", b"abcdefgh and more"])
def test_a_file_is_sent_as_it_is_whatever_the_disk_has(tmp_path, on_disk):
    async def story(at):
        file_id = (await at.upload(b"abcdefgh")).json()["id"]
        (tmp_path / "data" / "files" / file_id).write_bytes(on_disk)
        answer = await at.ask("GET", f"/v1/files/{file_id}/content")
        assert answer.content == on_disk[:8]
        assert answer.headers["content-length"] == str(len(answer.content))

    play(tmp_path, story)
