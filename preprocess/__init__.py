"""Converts a source of images to shards: sources, images (one image at a time), job (all shards of a data set).

`python -m preprocess SOURCE OUT` is the command; preprocess/run.py is the whole job, from top to bottom.
"""
