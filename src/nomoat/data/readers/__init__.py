"""Readers: one file a format, and one for each kind of container."""

from nomoat.data.readers.detect import Detected
from nomoat.data.readers.read import detect, open_rows, read_rows

__all__ = ["Detected", "detect", "open_rows", "read_rows"]
