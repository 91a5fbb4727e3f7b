"""The share when the Host starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hakuriver.config import Settings
from hakuriver.errors import StorageError
from hakuriver.models.runner import SHARED_MARKER
from hakuriver_host.db.engine import open_database
from hakuriver_host.services import share as shares


def test_a_share_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_OPEN_SECONDS", 0.5)
    folder = tmp_path / "shared"
    folder.mkdir()
    # Reading it waits for a writer that never comes.
    os.mkfifo(folder / SHARED_MARKER)
    settings = Settings.model_validate({"paths": {"shared_dir": folder, "state_dir": tmp_path}})
    engine = open_database(settings.database_url)
    with pytest.raises(StorageError, match="does not answer"):
        shares.Share(settings, engine).open()
    engine.dispose()


def test_one_that_is_another_clusters_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    settings = Settings.model_validate({"paths": {"shared_dir": folder, "state_dir": tmp_path}})
    engine = open_database(settings.database_url)
    shares.Share(settings, engine).open()
    (folder / SHARED_MARKER).write_text("somebody else's\n", "utf-8")
    with pytest.raises(StorageError, match="belongs to another cluster"):
        shares.Share(settings, engine).open()
    engine.dispose()
