"""Every loader that is compared, ours and the naive one among them: one file each, in turns on the same task.

To add one: write `NAME.py` with a function `peer(task)` (benchmarks/processes/task.py) that reads the task's shards the
way the system's own documentation recommends; add a line to `roster.py`; and if the system needs an environment of its
own, a line to benchmarks/processes/environments.py. `tests/benchmarks/peers/test_peers.py` then compares its pixels.
"""
