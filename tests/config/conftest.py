"""Command lines are launched with a job that notes its arguments."""

from tests.support.launching import notes  # noqa: F401
