"""Whose a definition is."""

from pathlib import Path

import pytest

from appliance.core.errors import ServiceRefused
from appliance.service.definition_file import require_own, write_own


def test_a_folder_of_roots_is_refused_with_the_remedy(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(ServiceRefused, match="may be written by root alone; use sudo, or --user"):
        write_own(tmp_path / "unit", b"", mark=b"mark")


def test_what_is_written_can_be_replaced_and_what_another_wrote_cannot(tmp_path):
    path = tmp_path / "folder/unit"
    write_own(path, b"mark 1", mark=b"mark")
    write_own(path, b"mark 2", mark=b"mark")
    assert path.read_bytes() == b"mark 2"
    path.write_bytes(b"mine")
    with pytest.raises(ServiceRefused, match="by somebody else, and is kept; move it away first"):
        write_own(path, b"mark 3", mark=b"mark")
    assert path.read_bytes() == b"mine"
    with pytest.raises(ServiceRefused, match="there is no "):
        require_own(tmp_path / "none", mark=b"mark")
