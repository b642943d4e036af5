"""The findings of a check."""

import os
import shlex
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was found, and what the user can do about it.

    Attributes
    ----------
    level : 'ok', 'warning' or 'problem'
        A problem keeps something from working; a warning may be meant.
    text : str
    remedy : str
        The command or change that mends it; empty where all is well.
    """

    level: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""

    def __str__(self):
        line = f"{self.level:8} {self.text}" + (f" -> {self.remedy}" if self.remedy else "")
        return " ".join(line.splitlines())


def ok(text):
    return Finding("ok", text)


def warning(text, remedy):
    return Finding("warning", text, remedy)


def problem(text, remedy):
    return Finding("problem", text, remedy)


def set_variable(variable, value):
    """The shell command that sets an environment variable."""
    return f"set {variable}={value}" if os.name == "nt" else f"export {variable}={shlex.quote(str(value))}"


def shortened(names, n_shown=3):
    """``a, b, c and 5 more``: the first names of a list that may be long."""
    names = [str(name) for name in names]
    more = len(names) - n_shown
    return ", ".join(names[:n_shown]) + (f" and {more} more" if more > 0 else "")
