"""The errors that a user can mend."""


class UserError(Exception):
    """Something the user gave breaks a rule. The message is one line that names the file (or setting) and the rule.

    The command line prints it without a traceback and exits with 1; `--debug` shows the traceback.
    """


def nearest(word, known):
    """A hint such as ``; did you mean 'disc'?`` for the entry of `known` that looks most like `word`, or ''."""
    import difflib

    matches = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""
