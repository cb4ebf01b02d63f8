"""Errors and warnings that the command line prints as one line; and the exception that ends a wait."""


class ShardfeedError(Exception):
    """A failure that the user can understand and act on: exit status 1.

    The message says what is wrong, where, and what to do. It is printed unchanged, on one line.
    """


class UsageError(ShardfeedError):
    """The request makes no sense (a wrong path, name or combination): exit status 2."""


class OutOfMemory(ShardfeedError):
    """No memory is left, of a GPU or of the machine; the message says what takes less."""


class MissingDependency(ShardfeedError, ImportError):
    """A library that this part needs is not installed; the message names the extra that brings it."""


class ShardfeedWarning(UserWarning):
    """What the user should know of, while the work goes on; a command prints it as a line (cli/warned.py)."""


class Cancelled(Exception):
    """The caller set the stop event of a wait: the result is no longer wanted. Never shown to users."""
