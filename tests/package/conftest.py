"""What the tests of plots share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()
