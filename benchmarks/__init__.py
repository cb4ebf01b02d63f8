"""Measures this project: what it can do, what limits it, and how it compares with other loaders.

measure/ takes and stores figures, peers/ holds the loaders that are compared, processes/ runs each of them in a
process of its own, stages/ measures the parts of a run, report/ draws results, commands/ holds the command lines.
"""
