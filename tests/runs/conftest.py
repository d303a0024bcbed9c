"""Finished and unfinished trainings whose checkpoints the tests damage."""

from tests.support.damage import contents, good, run  # noqa: F401
from tests.support.training import digits_run  # noqa: F401
