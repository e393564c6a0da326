"""A PATH with nothing on it but stand-ins."""

import pytest


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder that is the whole PATH; `calls` in it has each call on a line."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def calls(tools):
    """Return the calls so far."""
    return lambda: (tools / "calls").read_text().splitlines()
