"""Saving and resuming a run: what a snapshot holds, when it is written, which one a run goes on from; the weights."""
