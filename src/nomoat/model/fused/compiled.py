"""The functions in C beside this file, made for this machine by its own compiler, once in a process."""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch

_LOG = logging.getLogger("nomoat.model")
_HERE = Path(__file__).parent
# nothing is linked: OpenMP and libm are found in this process, where torch has brought them, so that threads are shared
_FLAGS = "-std=gnu11 -O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp -fPIC -shared -nostdlib"
_MOST_S = 120

_P, _I, _L, _F = c_void_p, c_int, c_int64, c_float
_ARGUMENTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "decode.c": {
        "pack": (_P, _P, _I, _I),
        "linear": (_P, _P, _P, _P, _P, _I, _I, _I),
        "rms_norm": (_P, _P, _F, _P, _I, _I),
        "swiglu": (_P, _P, _I, _I),
        "attend": (_P, _P, _P, _P, _P, _F, _P, _P, _P, _P, _P, _I, _I, _I, _I, _I, _I, _I, _F),
        "draw": (_P, _P, _P, _P, _I, _I),
    },
    "train.c": {
        "rms_norm": (_P, _P, _F, _P, _P, _I, _I),
        "rms_norm_again": (_P, _P, _P, _P, _I, _I),
        "rms_norm_backward": (_P, _P, _P, _P, _P, _P, _I, _I),
        "rotate": (_P, _L, _P, _P, _F, _P, _I, _I, _I),
        "swiglu": (_P, _P, _L, _P, _I, _I),
        "swiglu_backward": (_P, _P, _P, _L, _P, _P, _I, _I),
        "log_share": (_P, _P, _P, _P, _I, _I),
        "share_on": (_P, _P, _L, _P, _P, _P, _P, _I, _I),
    },
    "attention.c": {
        "attention": (*(_P,) * 7, _I, _L, _L, _L, _I, _I, _I, _F),
        "attention_backward": (*(_P,) * 11, _I, _L, _L, _L, _I, _I, _I, _F),
    },
}
_RESULTS = {"attention": c_int, "attention_backward": c_int}
_BITS = {torch.float32: 32, torch.bfloat16: 16}


def decoding() -> ctypes.CDLL | None:
    """The functions that write answers, in float32; None where there is no compiler that makes them."""
    return _library("decode.c")


def training(stream: torch.dtype, number: torch.dtype) -> ctypes.CDLL | None:
    """The functions that train, with the residual sum and the norms' weights in one dtype and products in another;
    None where they are neither float32 nor bfloat16, or there is no compiler."""
    if stream not in _BITS or number not in _BITS:
        return None
    defines = f"-DSTREAM={_BITS[stream]}", f"-DNUMBER={_BITS[number]}"
    return _library("train.c", *defines)


def attention(number: torch.dtype) -> ctypes.CDLL | None:
    """Attention of packed segments, of numbers in this dtype; None where it is neither float32 nor bfloat16, or there
    is no compiler."""
    if number not in _BITS:
        return None
    return _library("attention.c", f"-DNUMBER={_BITS[number]}")


def is_there(number: torch.dtype) -> bool:
    """Whether a night computes in C, with products in this dtype: other bits come out of PyTorch alone."""
    return None not in (training(number, number), attention(number), decoding())


def at(tensor: torch.Tensor | None) -> int | None:
    """Where its numbers lie, as the functions are told it; None, which is 0 there, for a tensor that is absent."""
    return None if tensor is None else tensor.data_ptr()


@cache
def _library(source: str, *defines: str) -> ctypes.CDLL | None:
    """None where they cannot be made. Takes about a second.

    They are made anew in every process: a copy that is kept might meet another processor.
    """
    try:
        compiler = shlex.split(os.environ.get("CC", "").strip() or "cc")
        if shutil.which(compiler[0]) is None:
            raise FileNotFoundError("no C compiler is there")
        found = _made([*compiler, *_FLAGS.split(), *defines, str(_HERE / source)])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        own_words = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else ""
        _say((own_words or str(error)).splitlines()[0])
        return None
    for name, arguments in _ARGUMENTS[source].items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, _RESULTS.get(name)
    return found


@cache
def _say(why: str) -> None:
    """Once for each reason."""
    _LOG.warning(
        "PyTorch alone trains and samples, about half as fast: %s "
        "(install gcc, or set CC to one, and TMPDIR to where programs may run)",
        why,
    )


def _made(command: list[str]) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.so"
        subprocess.run(
            [*command, "-o", str(made)], check=True, capture_output=True, text=True, timeout=_MOST_S
        )
        return ctypes.CDLL(str(made))
