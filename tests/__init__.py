"""The tests, in the folders of the code that they test; helpers that several share are in tests/helpers."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
