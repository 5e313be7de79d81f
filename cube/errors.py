"""The two ways a user's run can go wrong: what was given is wrong, or the work failed."""


class InputError(ValueError):
    """Something the user gave (recipe, file, labels, store) cannot be used; exit code 2.

    The text says what was asked, what was found and what to do, in one or two lines.
    """


class WorkFailedError(RuntimeError):
    """The inputs were right but the work failed or is incomplete; exit code 1."""
