"""The command line of every part of the project: parsing, help, exit statuses, `--debug`, `--json`, `--version`.

A command is a frozen dataclass and a function that takes it. `tyro` makes the options from the dataclass. Every error
becomes one line on stderr and an exit status: 0 success, 1 failure, 2 usage, 130 interrupted. `--debug`, anywhere on
the line, shows the traceback; `--json` prints the result as a last line of JSON.
"""

from shards.common.cli.loading import loading
from shards.common.cli.options import Group
from shards.common.cli.parse import parse
from shards.common.cli.result import show_result
from shards.common.cli.run import Command, LazyCommand, chosen, guarded, run, run_commands

__all__ = [
    "Command",
    "Group",
    "LazyCommand",
    "chosen",
    "guarded",
    "loading",
    "parse",
    "run",
    "run_commands",
    "show_result",
]
