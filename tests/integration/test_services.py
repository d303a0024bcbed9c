"""The services that the slow tests of sweeps run on come up, work, and leave no process behind."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import services

pytestmark = pytest.mark.slow

OPTIMIZE = """
import sys, optuna
study = optuna.load_study(study_name="two", storage=sys.argv[1])
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=10)
"""

RAY = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote
def node():
    time.sleep(1)
    return ray.get_runtime_context().get_node_id()

print(len(set(ray.get([node.remote() for _ in range(4)]))))
"""


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch):
    """Every process that a test starts inherits a mark, by which those that are left at the end are found."""
    mark = secrets.token_hex(16)
    monkeypatch.setenv("STARTED_BY", mark)
    yield
    left = [pid for pid in services.processes() if services.names(pid, mark)]
    assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes()[:200] for pid in left]


@contextmanager
def here(service: AbstractContextManager) -> Iterator:
    """The service, or a skipped test that says what is missing."""
    with ExitStack() as stack:
        try:
            value = stack.enter_context(service)
        except services.NotHere as reason:
            pytest.skip(str(reason))
        yield value


def test_two_processes_share_a_study_in_postgres():
    optuna = pytest.importorskip("optuna")
    with here(services.postgres()) as url:
        study = optuna.create_study(study_name="two", storage=url)
        workers = [subprocess.Popen([sys.executable, "-c", OPTIMIZE, url]) for _ in range(2)]
        assert [worker.wait(120) for worker in workers] == [0, 0]
        assert sorted(trial.number for trial in study.trials) == list(range(20))
        study._storage.remove_session()


def test_tasks_run_on_both_nodes_of_a_ray_cluster_until_one_dies():
    with here(services.ray_cluster()) as cluster:
        assert driver(cluster) == 2
        cluster.kill()
        services.wait_for(lambda: cluster.alive() == 1, "the node's death was not noticed")
        assert driver(cluster) == 1


def driver(cluster: services.RayCluster) -> int:
    """Return the number of nodes that four tasks ran on."""
    command = [sys.executable, "-c", RAY, cluster.address]
    return int(subprocess.run(command, env=cluster.env, capture_output=True, check=True, timeout=120).stdout)


def test_slurm_runs_a_job_and_puts_it_back_into_the_queue(tmp_path):
    with here(services.slurm(grace=2)) as conf:
        env = os.environ | {"SLURM_CONF": str(conf)}
        assert slurm(env, "srun", "hostname").strip().partition(".")[0] == services.host()
        log = tmp_path / "log"
        script = f"echo start $SLURM_RESTART_COUNT >> {log}; sleep 60"
        slurm(env, "sbatch", "-o", "/dev/null", "--wrap", script)
        services.wait_for(log.exists, "the job did not begin")
        slurm(env, "srun", "--partition=urgent", f"--ntasks={os.cpu_count()}", "true")
        services.wait_for(lambda: "start 1" in log.read_text(), "the job did not begin again")


def test_slurm_accounts_for_a_job_that_was_cancelled():
    with here(services.slurm(accounting=True)) as conf:
        env = os.environ | {"SLURM_CONF": str(conf)}
        job = slurm(env, "sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 60").strip()
        slurm(env, "scancel", job)
        state = ("sacct", "-X", "-n", "-o", "State%20", "-j", job)
        services.wait_for(lambda: "CANCELLED" in slurm(env, *state), "the job was not entered as cancelled")


def slurm(env: dict[str, str], *command: str) -> str:
    """Return the output of one of Slurm's commands."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60, cwd="/")
    return done.stdout
