"""The one exception for mistakes that the person at the keyboard can mend.

Command lines print its message as a single line and leave with exit code 2 (`macro/utils/config.py`).
Everything else that goes wrong is a defect and keeps its traceback.
"""


class UserError(Exception):
    """A mistake of the user's: the message names the file or field, what is wrong with it, and the mend."""


class ItemError(Exception):
    """Why one item of a batch has no answer, in one line: a broken file, a reply without the promised fields.

    Code that handles one item raises it; code that handles a batch returns it in the item's place, and goes on.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ItemError) and other.reason == self.reason

    def __hash__(self) -> int:
        return hash(self.reason)


def check_range(where: str, options: object, low: float | int, high: float | int, *names: str) -> None:
    """Raises UserError where one of these fields of `options` is not in `low`..`high`, which may be infinite."""
    for name in names:
        value = getattr(options, name)
        if not low <= value <= high:
            due = f"be at least {low:g}" if high == float("inf") else f"lie in {low:g}..{high:g}"
            raise UserError(f"{where}: {name}={value} must {due}")
