"""The two errors that the command line turns into one clear line and an exit status."""


class ShardfeedError(Exception):
    """A failure that the user can understand and act on: exit status 1.

    The message says what is wrong, where, and what to do; it is printed as it is, on one line.
    """


class UsageError(ShardfeedError):
    """What was asked for makes no sense (a wrong path, name or combination): exit status 2."""


class MissingDependency(ShardfeedError, ImportError):
    """A library that this part needs is not installed; the message says which extra brings it."""
