"""Builds the native traffic once a session."""

from __future__ import annotations

import pytest

from .native import NativeTraffic, build


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> NativeTraffic:
    """The compiled traffic."""
    return build(tmp_path_factory.mktemp("native_traffic"))
