"""A real certificate authority for the service's processes."""

from collections.abc import Iterator

import pytest
from serviceprocess import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    yield authority
    authority.process.stop()
