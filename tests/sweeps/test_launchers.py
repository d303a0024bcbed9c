"""Sweeps on real clusters: every job ends as it would have alone, whatever happens to its node."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import services
from vae_cli.sweeps.job import read_jobs

pytestmark = pytest.mark.slow

LINE = ["report=false", "device=cpu", "sample_every=0", "log_every=10", "encoder.hidden=[64]", "decoder.hidden=[64]"]
COMMAND = [sys.executable, "-m", "vae_cli", "train", "-m", *LINE]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def numbers(sweep):
    with (Path(sweep) / "sweep.csv").open(newline="") as file:
        return [(row["job"], row["status"], row["test_elbo"]) for row in csv.DictReader(file)]


def alone(*argv):
    """Return the numbers of the same jobs, run one after the other on this machine."""
    subprocess.run([*COMMAND, *argv, "sweep=alone"], check=True, stdout=subprocess.DEVNULL)
    return numbers("alone")


def begun(sweep, count, seconds=120):
    end = time.monotonic() + seconds
    while len(list(Path(sweep).glob("*/metrics.jsonl"))) < count:
        assert time.monotonic() < end, "the jobs did not begin"
        time.sleep(0.2)


def test_processes_of_submitit_train_a_sweep_on_this_machine():
    pytest.importorskip("submitit")
    argv = ["latent_dim=2,3,4", "epochs=3"]
    subprocess.run([*COMMAND, *argv, "hydra/launcher=slurm_local", "sweep=s"], check=True)
    assert numbers("s") == alone(*argv)


def ray_sweep(cluster, *argv):
    words = ["hydra/launcher=ray_cluster", f"hydra.launcher.ray.init.address={cluster.address}", "sweep=s"]
    return subprocess.Popen([*COMMAND, *argv, *words], env=cluster.env)


@pytest.fixture
def ray():
    try:
        with services.ray_cluster(nodes=2, cpus=1) as cluster:
            yield cluster
    except services.NotHere as reason:
        pytest.skip(str(reason))


def test_all_jobs_of_a_ray_cluster_end_the_same_though_one_of_its_two_nodes_dies(ray):
    argv = ["latent_dim=2,3,4,5,6,7", "epochs=200"]
    with ray_sweep(ray, *argv) as process:
        begun("s", 2)
        ray.kill()
        assert process.wait(300) == 0
    assert len(numbers("s")) == 6 and numbers("s") == alone(*argv)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_jobs_on_all_nodes_of_a_ray_cluster(ray, number, code):
    with ray_sweep(ray, "latent_dim=2,3,4", "epochs=100000") as process:
        begun("s", 2)
        process.send_signal(number)
        assert process.wait(60) == code
    assert [job.status for job in read_jobs(Path("s"))] == ["interrupted", "interrupted", "pending"]


@pytest.fixture
def slurm(monkeypatch):
    pytest.importorskip("submitit")
    try:
        with services.slurm(cpus=2, grace=20, accounting=True) as conf:
            monkeypatch.setenv("SLURM_CONF", str(conf))
            yield conf
    except services.NotHere as reason:
        pytest.skip(str(reason))


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.split()


def put_in_front():
    """A job of more urgency takes both cores."""
    subprocess.run(["srun", "--partition=urgent", "--ntasks=2", "true"], check=True, cwd="/", capture_output=True)


def signalled(name):
    def send():
        subprocess.run(["scancel", f"--signal={name}", output_of("squeue", "-h", "-o", "%i", "-t", "R")[0]], check=True)

    return send


@pytest.mark.parametrize(
    "preempt", [put_in_front, signalled("USR2"), signalled("TERM")], ids=["preempted", "USR2", "TERM"]
)
def test_jobs_that_slurm_preempts_save_themselves_go_back_into_the_queue_and_end_the_same(slurm, preempt):
    argv = ["latent_dim=2,3,4", "epochs=200"]
    with subprocess.Popen([*COMMAND, *argv, *SLURM, "sweep=s"]) as process:
        begun("s", 2)
        preempt()
        assert process.wait(300) == 0
    again = [path for path in Path("s").glob("*/train.log") if "resumed     after epoch" in path.read_text()]
    assert len(again) == (2 if preempt is put_in_front else 1)
    assert numbers("s") == alone(*argv)


def test_ctrl_c_saves_the_jobs_on_slurm(slurm):
    argv = ["latent_dim=2,3", "epochs=100000"]
    with subprocess.Popen([*COMMAND, *argv, *SLURM, "sweep=s"]) as process:
        begun("s", 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert [row[1] for row in numbers("s")] == ["interrupted", "interrupted"]
