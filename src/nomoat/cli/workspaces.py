"""The folder that a night writes to."""

from __future__ import annotations

from pathlib import Path


def ready_workspace(workspace: Path) -> None:
    """Make the workspace's `.nomoat`, before heavy libraries are loaded: what cannot work is told at once.

    Raises ArtifactError where no such folder can be made.
    """
    from nomoat.ledger.artifacts import HOUSE
    from nomoat.ledger.files import make_folder

    make_folder(workspace / HOUSE)
