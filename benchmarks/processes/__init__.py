"""Runs each peer in a process of its own, and in an environment of its own where it needs one.

`task.py` defines what a peer is told and what it answers, `process.py` starts the process that `serve.py` runs,
`environments.py` makes the virtual environments, `dataloader.py` holds what peers with torch's DataLoader share.
"""
