"""Files that are damaged at random: whatever is changed, the program gives the same result or one clear error.

`test_fuzz.py` tries a hundred mutations of each file; `python -m tests.fuzz` 5,000.
docs/determinism.md has the table of what is caught where.
"""
