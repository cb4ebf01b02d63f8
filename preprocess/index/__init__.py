"""Indexes tars that others wrote: `python -m shards index SOURCE`.

options.py   the command line               in_place.py  which images every decoder reads alike
job.py       the whole job                  finish.py    index, rejects and manifest
scan.py      one tar -> rows of the index
"""
