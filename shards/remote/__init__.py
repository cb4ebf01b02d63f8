"""Data sets behind URLs: the object store that holds them, the cache on this machine's disk, and the prefetcher."""
