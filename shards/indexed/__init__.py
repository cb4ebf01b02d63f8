"""Tars of others, read in place: what names them (source.py), and where their index is found (find.py).

`preprocess/index/` makes the index. The rest of the loader sees a manifest whose shards have places of their own.
"""
