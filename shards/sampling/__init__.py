"""Which samples, in which order, cropped and augmented how: pure functions of (seed, epoch, sample id) in numpy.

No files, no threads, no torch, no DALI.
"""
