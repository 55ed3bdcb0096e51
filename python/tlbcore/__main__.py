"""`python -m tlbcore` is the `tlbcore` command."""

from tlbcore.cli import entry

entry()
