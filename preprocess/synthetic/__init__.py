"""Synthetic images: ten kinds of shapes, in image files of ImageNet's sizes and with its oddities.

The source `synthetic:train=2000,validation=500,classes=10,seed=0` gives them to `python -m preprocess`, and
`python -m preprocess.synthetic OUT` writes the same rows as parquet. One core draws at least 100 images a second.
"""

from preprocess.synthetic.source import SyntheticSource, parse

__all__ = ["SyntheticSource", "parse"]
