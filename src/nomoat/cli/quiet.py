"""Libraries that would write over our progress are asked for silence."""

from __future__ import annotations

import logging as python_logging
import os
import warnings

from nomoat.cli.errors import DEBUG


def quiet_libraries() -> None:
    """Before a model is opened: no advice, bars or warnings for programmers. What goes wrong is raised, and
    told. With NOMOAT_DEBUG=1 they may speak."""
    # OpenMP's threads wait for each other by spinning, so on a machine that is busy with something else two
    # threads can be many times slower than one (docs/log.md). torch reads this when it is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if os.environ.get(DEBUG) == "1":
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", module=r"(transformers|peft|torch|huggingface_hub)\b")
    python_logging.getLogger("lm_eval").setLevel(python_logging.ERROR)
    from transformers.utils import logging

    logging.disable_progress_bar()
