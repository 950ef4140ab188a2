"""The one exception for mistakes that the user can fix.

Command lines print its message as a single line and exit with code 2 (`macro/utils/config.py`).
Every other exception is a bug and keeps its traceback.
"""


class UserError(Exception):
    """A mistake of the user's: the message names the file or field, what is wrong with it, and the fix."""


class ItemError(Exception):
    """Why one item of a batch has no result, in one line: a broken file, a reply without the required fields.

    Code that handles one item raises it; code that handles a batch returns it in place of the result and continues.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ItemError) and other.reason == self.reason

    def __hash__(self) -> int:
        return hash(self.reason)


def check_range(where: str, options: object, low: float | int, high: float | int, *names: str) -> None:
    """Raises UserError if one of these fields of `options` is outside `low`..`high`, which may be infinite."""
    for name in names:
        value = getattr(options, name)
        if not low <= value <= high:
            due = f"be at least {low:g}" if high == float("inf") else f"lie in {low:g}..{high:g}"
            raise UserError(f"{where}: {name}={value} must {due}")
