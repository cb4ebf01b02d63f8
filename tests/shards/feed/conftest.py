import pytest

from tests.helpers.fake_gpu import Gpu, fake_gpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """What stands for a GPU in these tests."""
    return fake_gpu(monkeypatch)
