"""A sweep ends with every job done, whatever happens to it on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.sweeping import SMALL, FakeTraining, statuses, sweep, table
from vae_cli import cli
from vae_cli.commands import compare
from vae_cli.errors import ConfigError
from vae_cli.sweeps import sweepers
from vae_cli.sweeps.job import read_jobs
from vae_cli.system import threads
from vae_cli.system.locks import file_lock


def job_statuses(directory="s"):
    return [job.status for job in read_jobs(Path(directory))]


# A whole sweep


def test_a_sweep_ends_with_a_table_of_all_its_jobs_and_status_1_after_a_failure(capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        cli.train(["-m", *SMALL, "epochs=1", "latent_dim=2,0", "optimizer=adam,sdg", "sweep=s", "encoder=mlp"])
    assert ended.value.code == 1
    rows = table()
    assert [(row["job"], row["status"]) for row in rows] == [
        *[("0", "completed"), ("1", "failed"), ("2", "failed"), ("3", "failed")]
    ]
    assert rows[0]["overrides"].startswith("epochs=1") and "optimizer=adam" in rows[0]["overrides"].split()
    summary = json.loads((Path(rows[0]["directory"]) / "summary.json").read_text())
    assert float(rows[0]["test_elbo"]) == summary["test"]["elbo"] and float(rows[0]["seconds"]) > 0
    assert "optimizer=sdg: did you mean sgd?" in rows[1]["error"]
    assert rows[2]["error"] == "latent_dim=0: latent_dim accepts an integer of at least 1"
    assert [json.loads(line)["job"] for line in Path("s/sweep.jsonl").read_text().splitlines()] == [0, 1, 2, 3]
    out, err = capsys.readouterr()
    shown = out[out.index("\njob ") :]
    assert all(f"latent_dim={n} optimizer={o}" in shown for n in (0, 2) for o in ("adam", "sdg"))
    assert "1 completed, 3 failed" in shown and rows[2]["error"] in shown and err.count("vae-train: error: job ") == 3
    monkeypatch.setenv("COLUMNS", "120")
    compare.run(["s"], {"metric": "elbo", "output": "."})
    assert "latent_dim-2__optimizer-adam" in capsys.readouterr().out


def test_a_wider_sweep_in_the_same_folder_trains_only_what_is_new():
    train = FakeTraining()
    assert sweep("latent_dim=2,3", "sweep=s", train=train) == 0
    assert sweep("sweep=s", "latent_dim=4,3,2", train=train) == 0
    assert [settings["latent_dim"] for settings in train.settings] == [2, 3, 4]
    assert [(row["job"], row["overrides"]) for row in table()] == [(str(n - 2), f"latent_dim={n}") for n in (2, 3, 4)]


def test_fail_fast_ends_a_sweep_with_its_first_failure_and_a_second_start_goes_on():
    argv = ["latent_dim=2,3", "optimizer.lr=-1,1e-3", "sweep=s"]
    assert sweep(*argv, "fail_fast=true", train=FakeTraining()) == 1
    assert statuses() == ["failed"]
    assert sweep(*argv, train=FakeTraining()) == 1
    assert statuses() == ["failed", "completed", "failed", "completed"]


def test_a_job_that_failed_is_run_again_only_with_retry_failed():
    class Broken(FakeTraining):
        def begin(self, settings):
            if settings["latent_dim"] == 3:
                raise RuntimeError("no luck")

    argv, train = ["latent_dim=2,3", "sweep=s"], FakeTraining()
    assert sweep(*argv, train=Broken()) == 1
    assert [(row["status"], row["error"]) for row in table()] == [
        ("completed", ""),
        ("failed", "unexpected RuntimeError: no luck (VAE_TRACEBACK=1 shows where)"),
    ]
    assert sweep(*argv, train=train) == 1 and statuses() == ["completed", "failed"]
    assert sweep(*argv, "retry_failed=true", train=train) == 0 and statuses() == ["completed", "completed"]
    assert [settings["latent_dim"] for settings in train.settings] == [3]


def test_the_number_of_a_job_is_its_own_in_every_start():
    train = FakeTraining()
    argv = ["seed=${hydra:job.num}", "sweep=s"]
    assert sweep("latent_dim=2,3,4", *argv, train=train) == 0
    for name in ("latent_dim-3", "latent_dim-4"):
        Path(f"s/{name}/summary.json").unlink()
    assert sweep("latent_dim=4,3", *argv, train=train) == 0
    numbers = [(settings["latent_dim"], settings["seed"]) for settings in train.settings]
    assert numbers == [(2, 0), (3, 1), (4, 2), (4, 2), (3, 1)]


# Shared with other processes


def test_a_sweep_that_another_process_runs_is_refused_in_one_line():
    Path("s").mkdir()
    with file_lock(Path("s/.lock")), pytest.raises(ConfigError, match="s is being run by another process"):
        sweep("latent_dim=2,3", "sweep=s", train=FakeTraining())
    assert not list(Path("s").iterdir())


def test_a_job_that_another_process_trains_is_waited_for(monkeypatch):
    assert sweep("latent_dim=2,3", "sweep=s", train=FakeTraining()) == 0
    Path("s/latent_dim-3/summary.json").unlink()
    looks, train = [], FakeTraining()
    monkeypatch.setattr(sweepers.Job, "status", property(lambda job: "running" if len(looks) < 3 else "completed"))
    monkeypatch.setattr(sweepers.time, "sleep", looks.append)
    assert sweep("latent_dim=2,3", "sweep=s", train=train) == 0
    assert len(looks) == 3 and not train.settings


# Foreign files, passwords, launchers


def test_a_password_is_written_nowhere():
    line = ["latent_dim=2,3", "hydra/sweeper=optuna", "hydra.sweeper.study_name=x", "sweep=s"]
    with pytest.raises(ConfigError) as refused:
        sweep(*line, "hydra.sweeper.storage=nosuch://me:hush/hush@host/db", train=FakeTraining())
    assert "hush" not in str(refused.value)
    assert not any(b"hush" in path.read_bytes() for path in Path("s").rglob("*") if path.is_file())


def test_files_of_others_in_the_folder_make_no_job_train_outside_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VICTIM", str(tmp_path / "victim"))
    (tmp_path / "victim").mkdir()
    assert sweep("latent_dim=2,3,4", "sweep=s", train=FakeTraining()) == 0
    record = json.loads(Path("s/latent_dim-2/job.json").read_text())
    for name in ("latent_dim-2", "latent_dim-3"):
        shutil.rmtree(Path("s") / name)
    (tmp_path / "victim/job.json").write_text(json.dumps(record | {"overrides": ["latent_dim=3"]}))
    Path("s/latent_dim-3").symlink_to(tmp_path / "victim")
    for name in ("${oc.env:VICTIM}", "x'y"):
        (Path("s") / name).mkdir()
        (Path("s") / name / "job.json").write_text(json.dumps(record))
    assert sweep("latent_dim=2,3,4", "sweep=s", train=FakeTraining()) == 0
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["job.json"]
    assert statuses() == ["completed"] * 3


@pytest.mark.slow
def test_a_launcher_that_fails_is_tried_again_and_then_named(monkeypatch, capsys):
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    attempts, launch = [], BasicLauncher.launch

    def dies(self, job_overrides, initial_job_idx):
        attempts.append(len(job_overrides))
        if len(attempts) != 5:
            raise MemoryError("a worker was killed")
        return launch(self, job_overrides, initial_job_idx)

    monkeypatch.setattr(BasicLauncher, "launch", dies)
    assert sweep("latent_dim=2,3", "sweep=s", train=FakeTraining()) == 1
    captured = capsys.readouterr()
    assert captured.err == "vae-train: error: hydra/launcher=basic: MemoryError: a worker was killed\n"
    assert "2 pending" in captured.out and "the same command goes on" in captured.out
    assert sweep("latent_dim=2,3", "sweep=s", train=FakeTraining()) == 0 and attempts == [2, 2, 2, 2, 2]


def test_an_interval_has_no_combinations():
    with pytest.raises(ConfigError, match="search it with hydra/sweeper=optuna"):
        sweep("optimizer.lr=interval(0,1)", "sweep=s", train=FakeTraining())
    assert not Path("s").exists()


def test_jobs_of_hydras_own_sweeper_are_trained_too():
    assert sweep("hydra/sweeper=basic", "latent_dim=2,3", "sweep=s", train=FakeTraining()) == 0
    assert statuses() == ["completed", "completed"] and Path("s/0/job.json").exists() and Path("s/1").exists()


def test_jobs_beside_each_other_share_the_cores(monkeypatch):
    tasks = []

    class Launcher(sweepers.Launcher):
        def setup(self, **_):
            pass

        def launch(self, job_overrides, initial_job_idx):
            return []

    def launcher(self, hydra_context, task_function, config):
        tasks.append(task_function)
        return Launcher()

    monkeypatch.setattr(sweepers.Plugins, "instantiate_launcher", launcher)
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for n_jobs, count in {2: 4, -1: 2, 3: 2}.items():
        sweep("latent_dim=2,3,4,5", "hydra/launcher=cores", f"hydra.launcher.n_jobs={n_jobs}", f"sweep={n_jobs}")
        assert (tasks[-1].threads, tasks[-1].is_quiet) == (count, True)
    sweep("latent_dim=2,3,4,5", "sweep=alone")
    assert (tasks[-1].threads, tasks[-1].is_quiet) == (None, False)


# Several processes

CORES = ["hydra/launcher=cores", "hydra.launcher.n_jobs=2"]
COMMAND = [sys.executable, "-m", "vae_cli", "train", "-m", *SMALL, "log_every=50", "sweep=s"]


def processes(group):
    """The living processes of a group."""
    listing = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in listing.splitlines()]
    return [args for pgid, state, args in lines if int(pgid) == group and not state.startswith("Z")]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def begun(count):
    return lambda: len(list(Path("s").glob("*/metrics.jsonl"))) >= count


SIGNALS = [
    pytest.param(signal.SIGINT, True, 130, marks=pytest.mark.slow),  # 19 s; test_task has a quick one of one job
    pytest.param(signal.SIGINT, False, 130, marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, False, 143, marks=pytest.mark.slow),
    pytest.param(signal.SIGHUP, True, 129, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "to_all", "code"), SIGNALS)
def test_a_signal_saves_the_jobs_of_all_workers_and_leaves_no_process(number, to_all, code):
    argv = [*COMMAND, "epochs=20000", "latent_dim=2,3,4", *CORES]
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        wait_for(begun(2))
        (os.killpg if to_all else os.kill)(process.pid, number)
        out = process.communicate(timeout=60)[0]
        assert process.returncode == code
        wait_for(lambda: not processes(process.pid), 10)
    assert statuses() == ["interrupted", "interrupted"] and "2 interrupted, 1 pending" in out


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], CORES])
def test_a_sweep_that_nobody_reads_any_more_saves_its_jobs_and_ends(launcher):
    argv = [*COMMAND, "epochs=20000", "latent_dim=2,3,4", *launcher]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(argv, start_new_session=True, **pipes) as process:
        wait_for(begun(2 if launcher else 1))
        process.stdout.close()
        assert process.wait(60) == 1
        wait_for(lambda: not processes(process.pid), 10)
    assert set(statuses()) == {"interrupted"}


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_whose_launcher_keeps_to_one_process():
    argv = [*COMMAND, "epochs=20000", "latent_dim=2,3", "hydra/launcher=cores", "hydra.launcher.n_jobs=1"]
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE) as process:
        wait_for(begun(1))
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    assert statuses() == ["interrupted"]


@pytest.mark.slow
def test_workers_whose_sweep_is_killed_save_and_end():
    argv = [*COMMAND, "epochs=20000", "latent_dim=2,3,4", *CORES]
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        wait_for(begun(2))
        process.kill()
        process.wait(10)
        wait_for(lambda: not processes(process.pid), 20)
    assert job_statuses() == ["interrupted", "interrupted", "pending"]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_job():
    argv = [*COMMAND, "epochs=300", "latent_dim=2,3,4", *CORES]
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        wait_for(begun(2))
        workers = subprocess.run(
            ["pgrep", "-g", str(process.pid), "-f", "LokyProcess"], capture_output=True, check=True
        )
        os.kill(int(workers.stdout.split()[0]), signal.SIGKILL)
        assert process.wait(180) == 0
    assert statuses() == ["completed"] * 3
