"""Which rows are kept out of training: a share by hash, and those that ask what the gate asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from nomoat.chat.conversation import Conversation

ASKED = "asked.bin"
"""In a folder of rows, judged answers or prompts: `asked_keys` of each of them to train on, `KEY_BYTES` each."""
KEY_BYTES = 16


def held_out(content_hash: str, share: float) -> bool:
    """Whether the row with this sha256 (hex) is held out, if `share` (0..1) of all rows are.

    It depends on the row alone: a row never crosses over when the file grows, and a larger share holds out
    the same rows and some more."""
    return place(content_hash) < share


def place(content_hash: str) -> float:
    """The hash as a number in [0, 1), evenly spread: the row is held out by every share above it."""
    return int(content_hash[:13], 16) / 16**13  # 52 bits, which a float64 holds exactly


def steering_and_judging(split_hashes: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices of the held-out rows that steer training, which keeps the weights of the lowest loss on them, and of
    those that say at the gate what came of it: a model looks better than it is on rows that it was chosen by.

    Half of all hashes (sha256, hex) are on each side, by their last digit, which `place` does not read. Where a side
    would be empty all steer and none judges."""
    steering = [i for i, split_hash in enumerate(split_hashes) if int(split_hash[-1], 16) % 2 == 0]
    if not 0 < len(steering) < len(split_hashes):
        return [*range(len(split_hashes))], []
    return steering, sorted({*range(len(split_hashes))} - {*steering})


def asked_keys(conversation: Conversation) -> list[str]:
    """A key (hex) for each turn of the user: what was asked up to it, whatever was answered. Case, white space and the
    system text make no difference, so that a prompt is known again in another dress."""
    asked: list[str] = []
    keys = []
    for message in conversation.messages:
        if message.role == "user":
            asked.append(" ".join(message.content.casefold().split()))
            text = json.dumps(asked, ensure_ascii=False).encode("utf-8", "replace")
            keys.append(hashlib.sha256(text).hexdigest()[: 2 * KEY_BYTES])
    return keys


def asked_in_training(asked: Path, keys: Collection[str]) -> list[str]:
    """Those of `keys` that a row to train on asks, sorted, by the file `asked` of its data folder (`ASKED`)."""
    wanted = {int(key[:16], 16) for key in keys}
    found = np.fromfile(asked, dtype=">u8").reshape(-1, 2)
    near = found[np.isin(found[:, 0], np.array(sorted(wanted), dtype=np.uint64))]
    return sorted(set(keys) & {row.tobytes().hex() for row in near})
