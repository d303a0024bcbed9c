"""What a person at a shell can mend."""


class UserError(ValueError):
    """A mistake in a setting, a file or the surroundings.

    Its message is one line that names the key, file or value at fault and what to do about it; the commands
    print it without a traceback and exit with status 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class ConfigError(UserError):
    """A setting that is unknown, of the wrong type, out of range, or at odds with another."""


class DataError(UserError):
    """A data set that is missing, broken, or not what the settings say."""


class CheckpointError(UserError):
    """A checkpoint that is missing, broken, or not one of ours."""


class OutputError(UserError):
    """A file of a run that cannot be written."""


class Busy(UserError):
    """A run directory in which another process is at work."""
