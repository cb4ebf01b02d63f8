"""What all tests of training share."""

import pytest


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run draws its curves, which takes longer than a short run, but one in a fixture of a module: it comes before.

    test_curves.py, test_engine.py and report/test_metrics.py draw them.
    """
    monkeypatch.setattr("train.curves.draw", lambda *_: None)
