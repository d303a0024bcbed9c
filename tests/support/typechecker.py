"""Beartype as the import hook in conftest.py uses it: a whole number is a float, too."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
