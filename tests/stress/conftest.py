"""Every test here is slow, and the native traffic is built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from .native import NativeTraffic, build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder; pytest hands over those of all others, too."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> NativeTraffic:
    """The compiled traffic."""
    return build(tmp_path_factory.mktemp("native_traffic"))
