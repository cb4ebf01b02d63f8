"""Threads and queues that turn a split into batches, and nothing else: `loop.py` is the whole way of a batch."""
