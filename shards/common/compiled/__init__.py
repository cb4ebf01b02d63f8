"""Reads of files and checksums inside compiled loops."""
