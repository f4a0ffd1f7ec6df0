"""Fixtures that every test may use."""

from pathlib import Path

import pytest

pytest_plugins = ["serving_fixtures"]

PROJECT_FOLDER = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def project_folder() -> Path:
    return PROJECT_FOLDER


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = PROJECT_FOLDER.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data samples in ../shared/data, which are not here")
    return folder
