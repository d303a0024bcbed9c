"""What went wrong, in a few words on one line."""

from __future__ import annotations

import re

LONGEST = 300


def reason(error: BaseException | str) -> str:
    """An error's message without line breaks and not overly long; its type where it has no message.

    An operating system's error loses its number and path, which the caller names, and torch's its C++ stack.
    """
    text = (getattr(error, "strerror", None) or str(error)) if isinstance(error, OSError) else str(error)
    words = " ".join(str(text).partition("\nException raised from")[0].split()) or type(error).__name__
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def printable(name: object) -> str:
    """A file's name on one line that every terminal can show, odd characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(name))


def without_passwords(text: str) -> str:
    """A text in which addresses such as postgresql://user:password@host do not tell the password."""
    return re.sub(r"(://[^:/@\s]+:)[^@\s]+@", r"\1***@", text)
