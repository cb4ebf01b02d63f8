"""Files that are damaged at random: whatever is changed, the program gives the same result or one clear error.

`test_fuzz.py` tries a hundred mutations of each file; `python -m tests.fuzz --mutations 5000` as many as you like.
docs/determinism.md has the table of what is caught where.
"""
