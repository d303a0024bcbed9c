"""Run directories as they are found and read, whatever lies in them."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.pages import trained
from vae_cli.config import compose
from vae_cli.runs import reader
from vae_cli.training.run import run as train


def test_patterns_and_overlapping_places_name_each_run_once(tmp_path):
    for name in ("0", "1", "2", "10", "3"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    runs = reader.find([str(tmp_path / "[01]"), str(tmp_path), str(tmp_path / "0")])
    assert [run.path.name for run in runs] == ["0", "1", "2", "3", "10"]
    assert [run.name for run in runs] == ["0", "1", "2", "3", "10"]


def test_settings_differ_only_where_runs_that_have_them_do(tmp_path):
    for name, prior in {"a": "{_target_: x.Normal}", "b": "{_target_: x.Flow, bins: 8}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"prior: {prior}\nseed: 1")
    assert reader.differing(reader.find([str(tmp_path)])) == ["prior"]


def test_only_plain_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    run = reader.Run(tmp_path, "x")
    assert (run.metrics, run.settings) == ([], {})


KILLED = """
import os, sys
from pathlib import Path
from vae_cli.config import compose
from vae_cli.runs.reader import Run
from vae_cli.training import run

def killed(*_):
    os._exit(10 if Run(directory, "").status == "running" else 11)

directory = Path(sys.argv[1])
run.fit = killed
run.run(compose.compose("train", [f"resume={directory}", "epochs=2"]), directory, frozenset({"resume", "epochs"}))
"""


@pytest.mark.slow
def test_a_run_that_goes_on_is_no_longer_completed(tmp_path):
    def status():
        return reader.Run(tmp_path, "").status

    trained(tmp_path, "epochs=1", "report=false")
    assert status() == "completed"
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60).returncode == 10
    assert status() == "unfinished"
    overridden = frozenset({"resume", "epochs"})
    assert train(compose.compose("train", [f"resume={tmp_path}", "epochs=2"]), tmp_path, overridden) == 0
    assert status() == "completed"


def test_distances_of_samples_are_found_where_an_evaluation_has_them_and_less_is_better(tmp_path):
    samples = {"prior": {"frechet_distance": {"value": 3.5}, "recall": {"value": 0.5}}, "gmm": {"fid": {"value": 7}}}
    generation = {"samples": samples, "reconstructions": {"frechet_distance": {"value": 0.25}}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"split": "test", "generation": generation}))
    run = reader.Run(tmp_path, "run")
    names = ("frechet_distance", "fid_gmm", "frechet_distance_reconstructions", "sample_recall")
    assert [run.number(name) for name in names] == [3.5, 7, 0.25, 0.5]
    assert run.number("fid") is None and run.number("frechet_distance_aggregate") is None
    assert {
        "frechet_distance",
        "kid",
        "fid_gmm",
    } <= reader.LOWER_IS_BETTER and "sample_recall" not in reader.LOWER_IS_BETTER
    (tmp_path / "evaluation.json").write_text(json.dumps({"split": "train", "generation": generation}))
    assert reader.Run(tmp_path, "run").number("frechet_distance") is None
