"""The C functions of `decode.c`, made for this machine by its own compiler, once in a process."""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from ctypes import c_float, c_int, c_void_p
from functools import cache
from pathlib import Path

_LOG = logging.getLogger("nomoat.model")
_SOURCE = Path(__file__).with_name("decode.c")
# nothing is linked: OpenMP and libm are found in this process, where torch has brought them, so that threads are shared
_FLAGS = "-std=gnu11 -O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp -fPIC -shared -nostdlib"
_MOST_S = 120

_P, _I, _F = c_void_p, c_int, c_float
_ARGUMENTS = {
    "pack": (_P, _P, _I, _I),
    "linear": (_P, _P, _P, _P, _P, _I, _I, _I),
    "rms_norm": (_P, _P, _F, _P, _I, _I),
    "swiglu": (_P, _P, _I, _I),
    "attend": (_P, _P, _P, _P, _P, _F, _P, _P, _P, _P, _P, _I, _I, _I, _I, _I, _I, _I, _F),
    "draw": (_P, _P, _P, _P, _I, _I),
}


@cache
def library() -> ctypes.CDLL | None:
    """The functions; None, which is said once, where there is no compiler that makes them. Takes about a second.

    They are made anew in every process: a copy that is kept might meet another processor.
    """
    try:
        compiler = shlex.split(os.environ.get("CC", "").strip() or "cc")
        if shutil.which(compiler[0]) is None:
            raise FileNotFoundError("no C compiler is there")
        found = _made(compiler)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        own_words = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else ""
        _LOG.warning(
            "answers are sampled by PyTorch alone, about half as fast: %s "
            "(install gcc, or set CC to one, and TMPDIR to where programs may run)",
            (own_words or str(error)).splitlines()[0],
        )
        return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, None
    return found


def _made(compiler: list[str]) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "decode.so"
        subprocess.run(
            [*compiler, *_FLAGS.split(), str(_SOURCE), "-o", str(made)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_MOST_S,
        )
        return ctypes.CDLL(str(made))
