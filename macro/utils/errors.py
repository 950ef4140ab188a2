"""The one exception for mistakes that the person at the keyboard can mend.

Command lines print its message as a single line and leave with exit code 2 (`macro/utils/config.py`).
Everything else that goes wrong is a defect and keeps its traceback.
"""


class UserError(Exception):
    """A mistake of the user's: the message names the file or field, what is wrong with it, and the mend."""
