"""Several processes go on with a training, or find it finished."""

import pytest

from tests.support.torchrun import TWO, assert_same_to_rounding, together

OWN = [
    *(word for word in TWO if not word.startswith("encoder.hidden")),
    *("encoder._target_=tests.support.networks.DropoutEncoder", "~encoder.hidden", "~encoder.activation"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert together(2, folder, *OWN)[0] == [0, 0]
    return folder / "run"


@pytest.mark.slow
def test_networks_that_draw_go_on_with_the_draws_of_an_undisturbed_training(whole, tmp_path):
    statuses, said, complaints = together(2, tmp_path, *OWN, extra=("SIGTERM", 11, 1))
    assert statuses == [143, 143] and not complaints, said
    statuses, said, complaints = together(2, tmp_path, f"resume={tmp_path / 'run'}", "allow=tests")
    assert statuses == [0, 0] and not complaints, said
    assert_same_to_rounding(whole, tmp_path / "run", weights=0, nats=0)


@pytest.mark.slow
def test_a_finished_run_is_left_alone_by_all(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    statuses, said, complaints = together(2, whole.parent, f"resume={whole}", "allow=tests")
    assert statuses == [0, 0] and not complaints and "is finished after 3 epochs" in said
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
