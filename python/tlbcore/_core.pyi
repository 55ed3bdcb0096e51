"""The compiled core. One section per file of `src/py`."""

__version__: str
