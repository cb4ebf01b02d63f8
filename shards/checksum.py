"""The CRC-32 of a sample's bytes: zlib's, computed by zlib-ng, which takes 3 us for 110 KB where Python's takes 28."""

from zlib_ng.zlib_ng import crc32

__all__ = ["crc32"]
