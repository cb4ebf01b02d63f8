"""Converts the bytes of one image file to a clean JPEG, or to raw pixels."""
