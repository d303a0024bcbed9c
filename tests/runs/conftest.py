"""A finished training whose checkpoints the tests damage."""

from tests.support.training import digits_run  # noqa: F401
