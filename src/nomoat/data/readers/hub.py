"""Data sets of the Hugging Face Hub, streamed through the `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nomoat.data.readers.tables import without_nulls
from nomoat.errors import DataError

_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.\[\]:%-]+))?")


def is_hub_id(name: str) -> bool:
    """Whether `name` looks like owner/name, owner/name:config or owner/name@split."""
    return _ID.fullmatch(name) is not None and not name.startswith((".", "/"))


def hub_rows(name: str) -> Iterator[tuple[int, object]]:
    """(number, row) from 1 of owner/name[:config][@split]; the split is `train` where none is named."""
    match = _ID.fullmatch(name)
    assert match is not None, name
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{name}: is no file here, and reading it from the Hub needs the `datasets` library.",
            hint='Install it: pip install "nomoat[hub]"',
        ) from None

    split = match["split"] or "train"
    try:
        rows = datasets.load_dataset(match["id"], match["config"], split=split, streaming=True)
        for number, row in enumerate(rows, 1):
            yield number, without_nulls(row)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{name}: is no file here, and cannot be read from the Hub: {lines[0]}",
            hint="Check the name (owner/name, owner/name:config, owner/name@split) and the network; for a "
            "private data set set HF_TOKEN.",
        ) from error
