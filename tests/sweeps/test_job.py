"""A job keeps its directory and number over all starts of its sweep."""

import json
import re

import pytest

from vae_cli.sweeps.job import assign_directories, read_job, read_jobs, save_job


@pytest.mark.parametrize(
    ("overrides", "swept", "name"),
    [
        (["latent_dim=8", "optimizer=sgd"], ["latent_dim", "optimizer"], "latent_dim-8__optimizer-sgd"),
        (["latent_dim=8", "optimizer=sgd"], ["latent_dim"], "latent_dim-8"),
        (["optimizer.lr=0.001"], [], "optimizer.lr-0.001"),
        (["encoder.hidden=[400,20]"], ["encoder.hidden"], r"encoder.hidden-400-20-\w{8}"),
        (["encoder.activation=ReLU"], ["encoder.activation"], r"encoder.activation-ReLU-\w{8}"),
        (["dataset.path='../../../etc/passwd'"], ["dataset.path"], r"dataset.path-..-..-..-etc-passwd-\w{8}"),
        (["data_dir='ü ~$HOME'"], ["data_dir"], r"data_dir-HOME-\w{8}"),
        (["data_dir=a__b"], ["data_dir"], r"data_dir-a__b-\w{8}"),
        ([f"data_dir={'x' * 300}"], ["data_dir"], r"data_dir-x{46}-\w{8}"),
        ([], [], r"job-default"),
    ],
)
def test_a_jobs_folder_has_a_short_safe_name_of_what_is_swept(overrides, swept, name, tmp_path):
    [job] = assign_directories(tmp_path, [overrides], swept)
    assert re.fullmatch(name, job.path.name) and job.path.parent == tmp_path
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", job.path.name) and job.path.name.strip(".") == job.path.name
    assert read_job(job.path).overrides == tuple(overrides)


def test_jobs_that_differ_never_share_a_folder(tmp_path):
    lists = [["a=b__c-d"], ["a=b", "c=d"], ["a='b'"], ["a=B"], ["a=b"], ["a=[b]"], ["a=(b)"], ["A=b"]]
    lists += [[f"data_dir={'x' * 200}{number}"] for number in range(20)] + [["a=b", "epochs=3"]]
    jobs = assign_directories(tmp_path, lists, ["a", "c", "A", "data_dir"])
    assert len({job.path.name.lower() for job in jobs}) == len(lists)
    assert [job.number for job in jobs] == list(range(len(lists)))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "latent_dim-2").mkdir()
    (tmp_path / "latent_dim-2/notes.txt").write_text("mine")
    [job] = assign_directories(tmp_path, [["latent_dim=2"]], ["latent_dim"])
    assert re.fullmatch(r"latent_dim-2-\w{8}", job.path.name)


def test_a_job_is_known_again_by_its_settings_in_any_order_and_not_by_those_without_effect(tmp_path):
    first = assign_directories(tmp_path, [["latent_dim=2", "epochs=3"], ["latent_dim=3", "epochs=3"]], ["latent_dim"])
    later = [["epochs=3", "latent_dim=4"], ["epochs=3", "latent_dim=3", "device=cpu", "logger=none"]]
    again = assign_directories(tmp_path, later, ["latent_dim"])
    assert [job.path for job in again] == [tmp_path / "latent_dim-4", first[1].path]
    assert [job.number for job in again] == [2, 1]
    [other] = assign_directories(tmp_path, [["latent_dim=3", "epochs=4"]], ["latent_dim"])
    assert other.number == 3 and other.path != first[1].path
    assert [job.number for job in assign_directories(tmp_path, [["seed=1"], ["seed=1"]], [])] == [4]


def test_a_setting_without_effect_counts_where_it_is_swept(tmp_path):
    assert len(assign_directories(tmp_path, [["device=cpu"], ["device=cuda"]], ["device"])) == 2


def test_a_jobs_file_says_what_it_was_asked(tmp_path):
    job = save_job(tmp_path / "j", 3, ["latent_dim=2", "epochs=1"], ["latent_dim"], trial=3)
    record = json.loads((tmp_path / "j/job.json").read_text())
    assert record == {"job": 3, "overrides": ["latent_dim=2", "epochs=1"], "swept": ["latent_dim"], "trial": 3}
    assert read_job(tmp_path / "j") == job and read_jobs(tmp_path) == [job] and job.title == "job 3 (latent_dim=2)"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job": "1", "overrides": []}', '{"job": 1, "overrides": 2}'])
def test_a_file_that_is_no_jobs_is_none(text, tmp_path):
    (tmp_path / "j").mkdir()
    (tmp_path / "j/job.json").write_text(text)
    assert read_job(tmp_path / "j") is None and read_jobs(tmp_path) == []


def test_a_links_job_is_none_of_the_sweep(tmp_path):
    save_job(tmp_path / "elsewhere/j", 0, ["a=1"], ["a"])
    (tmp_path / "s").mkdir()
    (tmp_path / "s/j").symlink_to(tmp_path / "elsewhere/j")
    assert read_jobs(tmp_path / "s") == []


def test_a_job_is_pending_until_something_is_saved_of_it(tmp_path):
    job = save_job(tmp_path / "j", 0, ["a=1"], ["a"])
    assert job.status == "pending"
    (tmp_path / "j/checkpoints").mkdir()
    (tmp_path / "j/checkpoints/last.safetensors").touch()
    assert job.status == "unfinished"
    job.write_summary("failed", "no luck")
    assert job.status == "failed" and job.run.error == "no luck"
