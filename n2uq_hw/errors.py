"""The one exception that users meet."""

__all__ = ["N2uqError"]


class N2uqError(Exception):
    """A fault in what the user gave or has: one line that names the thing, the rule and the value.

    The command line prints it without a traceback and exits with code 2.
    """
