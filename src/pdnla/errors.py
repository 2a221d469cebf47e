"""The one exception for what a user can put right."""


class UserError(Exception):
    """Something the user can mend: one clear sentence naming the file or option and the way out.

    The commands print it without a traceback and leave with exit status 2. Every other exception is a fault
    of ours and keeps its traceback.
    """
