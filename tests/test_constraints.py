"""Values that an annotation accepts, and its description in words."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import pytest

from vae_cli.constraints import (
    BelowOne,
    Betas,
    Channels,
    Count,
    Described,
    FilePath,
    FolderPath,
    Fraction,
    Index,
    Name,
    NonNegative,
    Positive,
    Range,
    Widths,
    accepts,
    as_annotated,
    check_value,
    describe_type,
)
from vae_cli.errors import ConfigError

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        (int, [0, -3], [True, 1.0, "1", None, [1]]),
        (float, [0, -3, 1.5], [True, NAN, INFINITE, "1", None]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "x"], [1, None, ["x"]]),
        (None, [None], [0, "", False]),
        (list, [[], [1]], [1, "x"]),
        (Any, [None, 1, "x", NAN], []),
        (Path, ["x", None, 1], []),
        (Callable[[int], int], ["x", 1], []),
        (Count, [1, 2**70], [0, -1, 1.0, True]),
        (Index, [0], [-1]),
        (Positive, [1e-9, 1], [0, -1, NAN]),
        (NonNegative, [0, 0.5], [-1e-9, NAN]),
        (Fraction, [0, 1, 0.5], [1.1, -0.1]),
        (BelowOne, [0, 0.999], [1, -0.1]),
        (Annotated[float, Range(0, 1, open_low=True)], [1, 0.5], [0, 1.1]),
        (Annotated[int, Range(0, 2**63 - 1)], [2**63 - 1], [2**63]),
        (Widths, [[], [400], (3, 4)], [400, [0], ["a"], [True], [1] * 1001]),
        (Channels, [[1]], [[], 32]),
        (Betas, [[0, 0.5]], [0.9, [0.9, 1]]),
        (tuple[float, float], [[0.9, 1]], [[0.9], [1, 2, 3], ["a", 1]]),
        (tuple[int, ...], [[], [1, 2]], [[0.5]]),
        (Sequence[str], [["a"]], ["ab", [1]]),
        (Optional[Count], [None, 1], [0]),  # noqa: UP045
        (Count | None, [None, 1], [0]),
        (Union[Literal["learned"], Positive], ["learned", 0.1], ["lerned", 0, None]),  # noqa: UP007
        (Literal[1, 3], [1, 3], [2, True, "1", 1.0]),
        (Literal["none", None], ["none", None], ["null", False]),
        (Name, ["x", " a b "], ["", "  ", 3]),
        (FilePath, ["x", "a\nb"], ["", "\t", "a\0b"]),
    ],
)
def test_an_annotation_accepts_what_it_says(annotation, right, wrong):
    assert all(accepts(annotation, value) for value in right)
    assert not any(accepts(annotation, value) for value in wrong)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (bool, "true or false"),
        (Count, "an integer of at least 1"),
        (Positive, "a number above 0"),
        (BelowOne, "a number from 0 to below 1"),
        (Annotated[float, Range(0, 1, open_low=True)], "a number above 0 and at most 1"),
        (Annotated[float, Range(0, 1, open_low=True, open_high=True)], "a number above 0 and below 1"),
        (Annotated[int, Range(0, 2**63 - 1)], "an integer from 0 to 2**63 - 1"),
        (Count | None, "null or an integer of at least 1"),
        (Literal["grid", "png", "npz"], "grid, png or npz"),
        (Literal["only"], "only"),
        (Widths, "a list of integers of at least 1, such as [400]"),
        (FolderPath, "a folder"),
        (Sequence[Count], "a list, each entry an integer of at least 1"),
        (Annotated[Positive | None, Described("a rate")], "a rate"),
        (Path, "Path"),
    ],
)
def test_an_annotation_is_described_in_words(annotation, words):
    assert describe_type(annotation) == words


def test_a_wrong_value_is_named_with_what_is_accepted_and_the_nearest_name():
    with pytest.raises(ConfigError) as caught:
        check_value("objective.kl", "analitic", Literal["auto", "analytic"] | None)
    assert str(caught.value) == (
        "objective.kl=analitic: objective.kl accepts null or auto or analytic; did you mean analytic?"
    )
    with pytest.raises(ConfigError, match="did you mean cuda"):
        check_value("device", "cudo", Annotated[Literal["cpu"], Described("a device", ("cuda", "mps"))])
    check_value("device", "cpu", Literal["cpu"])


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [(NonNegative, 3, 3.0), (float | None, 2, 2.0), (Count, 3, 3), (int | float, 3, 3), (float, True, True)],
)
def test_a_whole_number_is_a_float_where_a_float_is_annotated(annotation, value, expected):
    assert type(as_annotated(annotation, value)) is type(expected) and as_annotated(annotation, value) == expected
