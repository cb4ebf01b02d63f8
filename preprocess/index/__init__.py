"""Indexes tars that others wrote: `python -m shards index SOURCE`.

options.py   the command line               labels.py    the label of a sample
job.py       the whole job                  in_place.py  which images every decoder reads alike
scan.py      one tar -> rows of the index   finish.py    index, rejects and manifest
"""
