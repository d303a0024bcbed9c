"""Sweeps end with every job done, whatever happens to them on the way."""

import csv
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from vae_cli import cli
from vae_cli.commands import compare
from vae_cli.config import command_line
from vae_cli.runs import checkpoint
from vae_cli.sweeps import jobs, sweepers
from vae_cli.sweeps import launch as sweep_launch
from vae_cli.sweeps.jobs import Job, State
from vae_cli.system import threads
from vae_cli.training import loop, run

SMALL = ["epochs=2", "report=false", "device=cpu", "sample_every=0", "encoder.hidden=[8]", "decoder.hidden=[8]"]
CORES = ["hydra/launcher=cores", "hydra.launcher.n_jobs=2"]
COMMAND = [sys.executable, "-m", "vae_cli", "train", "-m"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def status(*argv):
    with pytest.raises(SystemExit) as caught:
        cli.train(["-m", *argv])
    return caught.value.code


def table(sweep="s"):
    with (Path(sweep) / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(sweep="s"):
    return [row["status"] for row in table(sweep)]


def outcome(directory):
    """What must not depend on how a job came to its end."""
    weights = checkpoint.load(Path(directory) / "checkpoints/last.pt")["model"]
    lines = [json.loads(line) for line in (Path(directory) / "metrics.jsonl").read_text().splitlines()]
    numbers = [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]
    return weights, numbers


def assert_same(one, other):
    (weights, numbers), (others, same) = outcome(one), outcome(other)
    assert all(torch.equal(weights[key], others[key]) for key in weights) and numbers == same


# Directories


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
    [job] = jobs.assign(tmp_path, [overrides], swept)
    assert re.fullmatch(name, job.path.name) and job.path.parent == tmp_path
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", job.path.name) and job.path.name.strip(".") == job.path.name
    assert jobs.read_job(job.path).overrides == tuple(overrides)


def test_jobs_that_differ_never_share_a_folder(tmp_path):
    lists = [["a=b__c-d"], ["a=b", "c=d"], ["a='b'"], ["a=B"], ["a=b"], ["a=[b]"], ["a=(b)"], ["A=b"]]
    lists += [[f"data_dir={'x' * 200}{number}"] for number in range(20)] + [["a=b", "epochs=3"]]
    found = jobs.assign(tmp_path, lists, ["a", "c", "A", "data_dir"])
    assert len({job.path.name.lower() for job in found}) == len(lists)
    assert [job.number for job in found] == list(range(len(lists)))


def test_a_job_is_known_again_by_its_settings_in_any_order_and_not_by_what_does_not_matter(tmp_path):
    first = jobs.assign(tmp_path, [["latent_dim=2", "epochs=3"], ["latent_dim=3", "epochs=3"]], ["latent_dim"])
    later = [["epochs=3", "latent_dim=4"], ["epochs=3", "latent_dim=3", "device=cpu", "logger=none"]]
    again = jobs.assign(tmp_path, later, ["latent_dim"])
    assert [job.path for job in again] == [tmp_path / "latent_dim-4", first[1].path]
    assert [job.number for job in again] == [2, 1]
    [other] = jobs.assign(tmp_path, [["latent_dim=3", "epochs=4"]], ["latent_dim"])
    assert other.number == 3 and other.path != first[1].path
    assert [job.number for job in jobs.assign(tmp_path, [["seed=1"], ["seed=1"]], [])] == [4]


def test_what_does_not_matter_counts_where_it_is_swept(tmp_path):
    assert len(jobs.assign(tmp_path, [["device=cpu"], ["device=cuda"]], ["device"])) == 2


# A whole sweep


def test_a_sweep_ends_with_a_table_of_all_its_jobs(capsys):
    argv = [*SMALL, "latent_dim=2,0", "optimizer=adam,sdg", "sweep=s", "encoder=mlp"]
    assert status(*argv) == 1
    rows = table()
    assert list(rows[0]) == ["job", "status", "overrides", "test_elbo", "seconds", "directory", "error"]
    assert [(row["job"], row["status"]) for row in rows] == [
        *[("0", "completed"), ("1", "failed"), ("2", "failed"), ("3", "failed")]
    ]
    assert rows[0]["overrides"].startswith("epochs=2") and "optimizer=adam" in rows[0]["overrides"].split()
    summary = json.loads((Path(rows[0]["directory"]) / "summary.json").read_text())
    assert float(rows[0]["test_elbo"]) == summary["test"]["elbo"] and float(rows[0]["seconds"]) > 0
    assert "optimizer=sdg: did you mean sgd?" in rows[1]["error"]
    assert rows[2]["error"] == "latent_dim=0: latent_dim accepts an integer of at least 1"
    assert [json.loads(line)["job"] for line in Path("s/sweep.jsonl").read_text().splitlines()] == [0, 1, 2, 3]
    out, err = capsys.readouterr()
    shown = out[out.index("\njob ") :]
    assert all(f"latent_dim={n} optimizer={o}" in shown for n in (0, 2) for o in ("adam", "sdg"))
    assert "1 completed, 3 failed" in shown and rows[2]["error"] in shown and err.count("vae-train: error: job ") == 3
    assert not [path.name for path in Path("s").iterdir() if path.name.startswith((".stop", ".alive"))]
    capsys.readouterr()
    compare.run(["s"], {"metric": "elbo", "output": "."})
    assert "latent_dim-2__optimizer-adam" in capsys.readouterr().out


def test_fail_fast_ends_a_sweep_with_its_first_failure_and_a_second_start_goes_on():
    argv = [*SMALL, "latent_dim=2,3", "optimizer.lr=-1,1e-3", "sweep=s"]
    assert status(*argv, "fail_fast=true") == 1
    assert statuses() == ["failed"]
    assert status(*argv) == 1
    assert statuses() == ["failed", "completed", "failed", "completed"]


def test_what_failed_is_run_again_only_when_that_is_wanted(monkeypatch):
    honest = run._start

    def broken(settings, *rest):
        if settings["latent_dim"] == 3:
            raise RuntimeError("no luck")
        honest(settings, *rest)

    argv = [*SMALL, "latent_dim=2,3", "sweep=s"]
    with monkeypatch.context() as patch:
        patch.setattr(run, "_start", broken)
        assert status(*argv) == 1
    assert [(row["status"], row["error"]) for row in table()] == [
        ("completed", ""),
        ("failed", "RuntimeError: no luck"),
    ]
    trained = (Path("s/latent_dim-2") / "train.log").stat().st_mtime_ns
    assert status(*argv) == 1 and statuses() == ["completed", "failed"]
    assert status(*argv, "retry_failed=true") == 0 and statuses() == ["completed", "completed"]
    assert (Path("s/latent_dim-2") / "train.log").stat().st_mtime_ns == trained


def test_a_wider_sweep_in_the_same_folder_trains_only_what_is_new():
    assert status(*SMALL, "latent_dim=2,3", "sweep=s") == 0
    before = {row["directory"]: row["seconds"] for row in table()}
    assert status("sweep=s", "latent_dim=4,3,2", *SMALL) == 0
    after = table()
    assert [row["job"] for row in after] == ["0", "1", "2"]
    assert {row["directory"]: row["seconds"] for row in after[:2]} == before


def test_an_interrupted_job_ends_the_sweep_and_goes_on_to_the_same_end(monkeypatch, capsys):
    argv = [*SMALL, "latent_dim=2,3", "dataset.binarize=dynamic"]
    assert status(*argv, "sweep=whole") == 0
    honest, steps = loop.step, []

    def interrupting(state, *arguments):
        honest(state, *arguments)
        steps.append(self)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", interrupting)
        assert status(*argv, "sweep=s") == 143
    assert statuses() == ["interrupted"] and "1 interrupted, 1 pending" in capsys.readouterr().out
    assert status(*argv, "sweep=s") == 0
    for name in ("latent_dim-2", "latent_dim-3"):
        assert_same(f"whole/{name}", f"s/{name}")


def test_a_job_that_was_killed_anywhere_goes_on_to_the_same_end(monkeypatch):
    class Killed(BaseException):
        pass

    argv = [*SMALL, "latent_dim=2,3"]
    assert status(*argv, "sweep=whole") == 0
    honest = loop.step
    for step in (0, 7, 23):

        def dying(self, bound, step=step):
            if self.position.step == step:
                raise Killed
            honest(self, bound)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(loop, "step", dying)
            status(*argv, "sweep=s")
    (Path("s/latent_dim-2/checkpoints/last.pt")).write_bytes(b"cut short")
    for path in Path("s/latent_dim-2/checkpoints").glob("best.pt"):
        path.unlink()
    assert status(*argv, "sweep=s") == 0
    for name in ("latent_dim-2", "latent_dim-3"):
        assert_same(f"whole/{name}", f"s/{name}")


def test_a_job_that_another_process_trains_is_waited_for(monkeypatch):
    assert status(*SMALL, "latent_dim=2,3", "sweep=s") == 0
    (Path("s/latent_dim-3") / "summary.json").unlink()
    looks, honest = [], time.sleep
    handle = os.open("s/latent_dim-3/checkpoints/.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)

    def ends(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            os.close(handle)
        honest(0.01)

    monkeypatch.setattr(sweepers.time, "sleep", ends)
    assert status(*SMALL, "latent_dim=2,3", "sweep=s") == 0
    assert len(looks) >= 3 and statuses() == ["completed", "completed"]


def test_the_number_of_a_job_is_its_own_in_every_start(monkeypatch):
    seen = []
    monkeypatch.setattr(run, "run", lambda settings, *_: seen.append((settings["latent_dim"], settings["seed"])) or 0)
    argv = ["seed=${hydra:job.num}", "sweep=s"]
    assert status("latent_dim=2,3,4", *argv) == 0
    (Path("s") / "latent_dim-3/summary.json").unlink()
    (Path("s") / "latent_dim-4/summary.json").unlink()
    assert status("latent_dim=4,3", *argv) == 0
    assert seen == [(2, 0), (3, 1), (4, 2), (4, 2), (3, 1)]


def test_a_sweep_is_told_what_goes_wrong_with_its_launcher(monkeypatch, capsys):
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    def dies(self, job_overrides, initial_job_idx):
        raise MemoryError("a worker was killed")

    monkeypatch.setattr(BasicLauncher, "launch", dies)
    assert status(*SMALL, "latent_dim=2,3", "sweep=s") == 1
    err = capsys.readouterr().err.strip()
    assert (
        err == "vae-train: error: hydra/launcher=basic could begin none of the jobs: MemoryError: a worker was killed"
    )
    assert [State(job.path).status for job in jobs.of_sweep(Path("s"))] == ["pending", "pending"]


def test_the_tables_grow_and_are_whole_whoever_writes_them_at_the_same_time(tmp_path):
    found = jobs.assign(tmp_path, [[f"seed={n}"] for n in range(40)], ["seed"])

    def end(some):
        for job in some:
            jobs.fail(job.path, 'line\nbreak, "comma"')
            jobs.write_tables(tmp_path)

    writers = [threading.Thread(target=end, args=(found[start::4],)) for start in range(4)]
    jobs.write_tables(tmp_path)
    for writer in writers:
        writer.start()
    seen = [0]
    while any(writer.is_alive() for writer in writers):
        rows = table(tmp_path)
        lines = [json.loads(line) for line in (tmp_path / "sweep.jsonl").read_text().splitlines()]
        assert all(row["error"] == 'line break, "comma"' for row in [*rows, *lines]) and len(rows) >= seen[-1]
        seen.append(len(rows))
    assert [row["job"] for row in table(tmp_path)] == [str(number) for number in range(40)]
    assert len(set(seen)) > 2


def test_a_password_is_written_nowhere(monkeypatch, capsys):
    monkeypatch.setattr(run, "run", lambda *_: 0)
    storage = "nosuch://me:hush/hush@host/db"
    assert (
        status(
            "latent_dim=2,3",
            "hydra/sweeper=optuna",
            "hydra.sweeper.study_name=x",
            f"hydra.sweeper.storage={storage}",
            "sweep=s",
        )
        == 1
    )
    assert "hush" not in capsys.readouterr().err
    assert not any(b"hush" in path.read_bytes() for path in Path("s").rglob("*") if path.is_file())


def test_a_strangers_folders_lead_nowhere(tmp_path, monkeypatch):
    """Neither a link nor a name that Hydra would resolve makes a job train outside of the sweep."""
    monkeypatch.setenv("VICTIM", str(tmp_path / "victim"))
    (tmp_path / "victim").mkdir()
    line = [*SMALL, "latent_dim=2,3,4"]
    assert status(*line, "sweep=s") == 0
    record = json.loads(Path("s/latent_dim-2/job.json").read_text())
    for name in ("latent_dim-2", "latent_dim-3"):
        shutil.rmtree(Path("s") / name)
    (tmp_path / "victim/job.json").write_text(json.dumps(record | {"overrides": ["latent_dim=3", *SMALL]}))
    Path("s/latent_dim-3").symlink_to(tmp_path / "victim")
    for name in ("${oc.env:VICTIM}", "x'y"):
        (Path("s") / name).mkdir()
        (Path("s") / name / "job.json").write_text(json.dumps(record))
    os.mkfifo("s/.alive-old")
    assert status(*line, "sweep=s") == 0
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["job.json"]
    assert len([row for row in table() if row["status"] == "completed"]) == 3


def test_a_checkpoint_that_cannot_be_opened_is_set_aside_and_not_lost(monkeypatch):
    assert status(*SMALL, "latent_dim=2", "sweep=s") == 0
    [job] = jobs.of_sweep(Path("s"))
    before = json.loads((job.path / "summary.json").read_text())["test"]
    (job.path / "summary.json").unlink()
    for name in ("best", "last"):
        (job.path / f"checkpoints/{name}.pt").write_bytes(b"damaged")
    assert status(*SMALL, "latent_dim=2", "sweep=s") == 0
    assert json.loads((job.path / "summary.json").read_text())["test"] == before
    assert (job.path / "checkpoints/last.pt.set_aside").read_bytes() == b"damaged"


def test_a_job_with_a_class_of_ones_own_goes_on_by_the_same_command(monkeypatch, tmp_path):
    code = "from vae_cli.networks import MLPEncoder\n\n\nclass Mine(MLPEncoder):\n    pass\n"
    (tmp_path / "my_sweep_package.py").write_text(code)
    argv = [*SMALL, "latent_dim=2,3", "encoder._target_=my_sweep_package.Mine", "sweep=s"]
    honest, steps = loop.step, []

    def interrupting(state, *arguments):
        honest(state, *arguments)
        steps.append(self)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", interrupting)
        assert status(*argv) == 143
    assert status(*argv) == 0 and statuses() == ["completed", "completed"]


def test_threads_of_one_job_are_not_those_of_the_next(monkeypatch):
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(run, "run", lambda *_: seen.append(torch.get_num_threads()) or 0)
    assert status("threads=1,3,null", "sweep=s") == 0
    assert seen == [1, 3, before]


# Several processes


def test_jobs_beside_each_other_share_the_cores(monkeypatch):
    composed = []

    class Launcher(sweepers.Launcher):
        def setup(self, **_):
            pass

        def launch(self, job_overrides, initial_job_idx):
            return []

    def launcher(self, hydra_context, task_function, config):
        composed.append(task_function)
        return Launcher()

    monkeypatch.setattr(sweepers.Plugins, "instantiate_launcher", launcher)
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    wanted = {"hydra.launcher.n_jobs=2": 4, "hydra.launcher.n_jobs=-1": 2, "hydra.launcher.n_jobs=3": 2}
    for line, count in wanted.items():
        status("latent_dim=2,3,4,5", "hydra/launcher=cores", line, f"sweep={len(composed)}")
        assert (composed[-1].threads, composed[-1].quiet, composed[-1].bound) == (count, True, True)
    status("latent_dim=2,3,4,5", "sweep=alone")
    assert (composed[-1].threads, composed[-1].quiet) == (None, False)


def test_jobs_take_a_gpu_each_and_give_it_back(monkeypatch, tmp_path):
    monkeypatch.setattr(threads.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,5")
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with threads.own_gpu("auto", 0), threads.own_gpu("cuda", 3), threads.own_gpu("auto", 1) as third:
        assert chosen == [0, 1, 2] and third == 2
        with threads.own_gpu("auto", 4) as shared:
            assert shared == 1
    with threads.own_gpu("auto", 1), threads.own_gpu("cuda:0", 1) as fixed, threads.own_gpu("cpu", 1) as none:
        assert chosen == [0, 1, 2, 1, 1] and fixed is None and none is None


def processes(group):
    """The living processes of a group."""
    found = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in found.splitlines()]
    return [args for pgid, state, args in lines if int(pgid) == group and not state.startswith("Z")]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def begun(sweep, count):
    return lambda: len(list(Path(sweep).glob("*/metrics.jsonl"))) >= count


SIGNALS = [
    (signal.SIGINT, True, 130),
    pytest.param(signal.SIGINT, False, 130, marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, False, 143, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "to_all", "code"), SIGNALS)
def test_a_signal_saves_the_jobs_of_all_workers_and_leaves_no_process(number, to_all, code, tmp_path):
    argv = [*SMALL, "epochs=20000", "log_every=50", "latent_dim=2,3,4", *CORES, "sweep=s"]
    with subprocess.Popen([*COMMAND, *argv], start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        wait_for(begun("s", 2))
        (os.killpg if to_all else os.kill)(process.pid, number)
        out = process.communicate(timeout=60)[0]
        assert process.returncode == code
        wait_for(lambda: not processes(process.pid), 10)
    assert statuses() == ["interrupted", "interrupted"] and "2 interrupted, 1 pending" in out
    assert all(State(job.path).run.commands for job in jobs.of_sweep(Path("s"))[:2])


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_whose_launcher_keeps_to_one_process():
    argv = [*SMALL, "epochs=20000", "log_every=50", "latent_dim=2,3", "hydra/launcher=cores", "hydra.launcher.n_jobs=1"]
    with subprocess.Popen([*COMMAND, *argv, "sweep=s"], start_new_session=True, stdout=subprocess.PIPE) as process:
        wait_for(begun("s", 1))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    assert statuses() == ["interrupted"]


@pytest.mark.slow
def test_two_starts_at_once_train_every_job_once():
    argv = [*COMMAND, *SMALL, "epochs=40", "latent_dim=2,3,4", "sweep=s"]
    running = [subprocess.Popen(argv, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    assert statuses() == ["completed"] * 3
    assert all(len(State(job.path).run.commands) == 1 for job in jobs.of_sweep(Path("s")))


@pytest.mark.slow
def test_workers_whose_sweep_is_killed_save_and_end():
    argv = [*SMALL, "epochs=20000", "log_every=50", "latent_dim=2,3", *CORES, "sweep=s"]
    with subprocess.Popen([*COMMAND, *argv], start_new_session=True, stdout=subprocess.DEVNULL) as process:
        wait_for(begun("s", 2))
        process.kill()
        process.wait()
        wait_for(lambda: not processes(process.pid), 20)
    assert [State(job.path).status for job in jobs.of_sweep(Path("s"))] == ["interrupted", "interrupted"]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_job():
    argv = [*SMALL, "epochs=300", "latent_dim=2,3,4", *CORES, "sweep=s"]
    with subprocess.Popen([*COMMAND, *argv], start_new_session=True, stdout=subprocess.DEVNULL) as process:
        wait_for(begun("s", 2))
        found = subprocess.run(["pgrep", "-g", str(process.pid), "-f", "LokyProcess"], capture_output=True, check=True)
        os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
        assert process.wait(180) == 0
    assert statuses() == ["completed"] * 3


def test_a_job_of_another_sweeper_is_trained_as_it_comes(tmp_path):
    job = Job(3, ("latent_dim=2",), tmp_path / "j")
    assert job.title == "job 3 (latent_dim=2)" and jobs.read_job(tmp_path) is None
    line = command_line.read_command_line(["-m", "hydra/sweeper=basic", "latent_dim=2,3", "sweep=s"])
    assert sweep_launch.launch(line, lambda *_: 0) == 0
    assert sorted(path.name for path in Path("s").iterdir()) == ["0", "1", "multirun.yaml"]
