"""The commands of `python -m benchmarks`, a module each: `Options`, a frozen dataclass, and `run(options)`."""
