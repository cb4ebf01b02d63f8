"""Tars of others, read in place: what names them (source.py), their samples and labels, and where their index is.

`preprocess/index/` makes the index. The rest of the loader sees a manifest whose shards have places of their own.
"""
