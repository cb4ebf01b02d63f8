"""Importing it loads the compiled loops of a conversion, so that forks have them: numba takes 0.3 s for them."""

from preprocess.images.convert import convert
from tests.helpers.datasets import jpeg, photo

convert(jpeg(photo(20, 20)), 16, 90)
