"""nomoat: your own open model, better every morning."""

__version__ = "0.1.0"
