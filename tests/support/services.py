"""Real services for the slow tests of sweeps: PostgreSQL, a Ray cluster and Slurm, each in a temporary folder of its
own on this machine, and gone at the end. Where a service is not installed, `NotHere` says why."""

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path


class NotHere(RuntimeError):
    """An error for a service that this machine lacks; the message is a reason for `pytest.skip`."""


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """Make a temporary folder with a path short enough for Unix sockets; at the end every process that names it is
    killed and the folder removed."""
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
    try:
        yield path
    except RuntimeError as error:
        raise RuntimeError("\n".join([str(error), *log_tails(path)])) from error
    finally:
        for _ in range(50):
            if not kill_users(path):
                break
            time.sleep(0.1)
        shutil.rmtree(path, ignore_errors=True)


def log_tails(path: Path) -> list[str]:
    """Return the last lines that a service's daemons wrote."""
    return [f"{file.name}: {file.read_text(errors='replace')[-2000:]}" for file in sorted(path.glob("*.log"))]


def kill_users(path: Path) -> list[int]:
    """Kill the processes whose arguments or environment name the folder, and return them."""
    pids = [pid for pid in processes() if pid != os.getpid() and names(pid, path)]
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return pids


def processes() -> list[int]:
    """Return the running processes, zombies included."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def names(pid: int, text: str | Path) -> bool:
    """Return whether a process has a text, such as a folder's name, in its arguments or its environment."""
    wanted = os.fsencode(text)
    for file in ("cmdline", "environ"):
        with suppress(OSError):
            if wanted in Path(f"/proc/{pid}/{file}").read_bytes():
                return True
    return False


def free_ports(count: int) -> list[int]:
    """Return different TCP ports of the loopback interface that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def wait_for(ready: Callable[[], bool], what: str, *needed: subprocess.Popen, seconds: float = 60) -> None:
    """Wait until a condition holds, or raise a RuntimeError that says what did not happen, at once when a process
    that is needed for it has ended."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end or any(process.poll() is not None for process in needed):
            raise RuntimeError(f"{what} within {seconds:g} seconds, or its process ended")
        time.sleep(0.1)


def output(command: list[str], env: dict[str, str]) -> str:
    """Return the output of a command, whether it succeeds or not."""
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30).stdout


def succeeds(*command: str | Path, **options: object) -> bool:
    """Return whether a command ends with status 0."""
    return subprocess.run(command, capture_output=True, timeout=30, check=False, **options).returncode == 0


@contextmanager
def daemon(
    command: Sequence[str],
    log: Path,
    stop: signal.Signals = signal.SIGTERM,
    env: dict[str, str] | None = None,
    user: Sequence[str] = (),
) -> Iterator[subprocess.Popen]:
    """Run a process in the background that is asked to stop at the end, or when this process dies, and killed if it
    has not ended within ten seconds. Signals that this process ignores, as jobs in the background of a shell do, it
    does not."""
    with log.open("ab") as file:
        guarded = [
            *user,
            "env",
            "--default-signal",
            "setpriv",
            f"--pdeathsig={stop.name.removeprefix('SIG')}",
            *command,
        ]
        process = subprocess.Popen(guarded, stdout=file, stderr=file, env=env, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(stop)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# PostgreSQL


@contextmanager
def postgres(connections: int = 100) -> Iterator[str]:
    """Start a PostgreSQL server with an empty database, on a Unix socket only; yield its SQLAlchemy URL."""
    binaries = postgres_binaries()
    with folder("postgres") as path:
        user = unprivileged(path)
        data = path / "data"
        make = [*user, binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(list(map(str, make)), check=True, capture_output=True, cwd=path)
        settings = {"listen_addresses": "", "unix_socket_directories": path, "fsync": "off"}
        settings |= {"max_connections": connections}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        server = [str(binaries / "postgres"), "-D", str(data), *options]
        client = ("-h", path, "-U", "postgres")
        with daemon(server, path / "postgres.log", signal.SIGINT, user=user) as process:
            wait_for(lambda: succeeds(binaries / "pg_isready", *client), "PostgreSQL did not answer", process)
            subprocess.run([binaries / "createdb", *client, "study"], check=True, capture_output=True, cwd=path)
            yield f"postgresql+psycopg://postgres@/study?host={path}"


def postgres_binaries() -> Path:
    """Return the folder of the newest installed server's programs, which Debian keeps off the PATH."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    on_path = shutil.which("initdb")
    if not programs and not on_path:
        raise NotHere("not here: PostgreSQL's server (Debian's package postgresql)")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise NotHere(f"not here: PostgreSQL's driver for Python ({error}): pip install 'psycopg[binary]'") from error
    return programs[-1].parent if programs else Path(on_path).parent


def unprivileged(path: Path) -> list[str]:
    """Return the words before a command that PostgreSQL refuses to run as root; the folder is given to that user."""
    if os.geteuid():
        return []
    shutil.chown(path, "postgres", "postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


# Ray


@dataclass
class RayCluster:
    """A cluster's address, `host:port`; the environment in which programs may use it; its nodes' processes, the head
    first."""

    address: str
    env: dict[str, str]
    nodes: list[subprocess.Popen] = field(default_factory=list)

    def alive(self) -> int:
        """Return the number of nodes that the cluster counts as alive; a power cut shows after ten seconds or so."""
        command = [sys.executable, "-c", COUNT_NODES, self.address]
        return int(subprocess.run(command, env=self.env, capture_output=True, check=True, timeout=60).stdout)

    def kill(self, node: int = -1) -> None:
        """Kill a node as a power cut would, and with it the tasks that it runs."""
        for pid in descendants(self.nodes[node].pid):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def stop(self, node: int = -1) -> None:
        """Stop a node: its tasks have `RAY_DRAIN` seconds to end, and get no signal."""
        self.nodes[node].terminate()


RAY_DRAIN = 3
COUNT_NODES = """
import sys
from ray._raylet import GcsClient
print(sum(node.state == 0 for node in GcsClient(address=sys.argv[1]).get_all_node_info().values()))
"""


@contextmanager
def ray_cluster(nodes: int = 2, cpus: int = 1) -> Iterator[RayCluster]:
    """Start a Ray cluster on this machine, of a head and further nodes; node `i` has one of the resource `node<i>`.
    Nothing is stopped by `ray stop`, which ends every cluster of the machine."""
    program = Path(sys.executable).with_name("ray")
    if not program.exists():
        raise NotHere("not here: ray (pip install 'vae-cli[ray]')")
    port = free_ports(1)[0]
    cluster = RayCluster(f"127.0.0.1:{port}", ray_environment())
    with folder("ray") as path, ExitStack() as stack:
        for node in range(nodes):
            role = ["--head", f"--port={port}"] if node == 0 else [f"--address={cluster.address}"]
            command = [str(program), "start", "--block", *role, *ray_options(path, node, cpus)]
            log = path / f"node{node}.log"
            process = stack.enter_context(daemon(command, log, env=cluster.env))
            cluster.nodes.append(process)
            wait_for(partial(says, log, "Ray runtime started"), f"Ray's node {node} did not come up", process)
        yield cluster


def ray_options(path: Path, node: int, cpus: int) -> list[str]:
    """Return options with which several nodes fit on one machine: no dashboard, little memory, ports of their own."""
    agent, client, dashboard = free_ports(3)
    options = {"node-ip-address": "127.0.0.1", "num-cpus": cpus, "resources": json.dumps({f"node{node}": 1})}
    options |= {"object-store-memory": 80_000_000, "min-worker-port": 0, "max-worker-port": 0}
    options |= {"dashboard-agent-listen-port": agent}
    if node == 0:
        options |= {"include-dashboard": "false", "dashboard-port": dashboard}
        options |= {"ray-client-server-port": client, "temp-dir": path}
    return ["--disable-usage-stats", *(f"--{name}={value}" for name, value in options.items())]


def ray_environment() -> dict[str, str]:
    """This process's environment with a token of the cluster's own, whatever the user's is, without metrics, and with
    a short time for tasks to end in."""
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    settings |= {"RAY_enable_metrics_collection": "0", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(RAY_DRAIN)}
    return os.environ | settings


def says(log: Path, text: str) -> bool:
    """Return whether a log holds a text."""
    return text in log.read_text(errors="replace")


def descendants(pid: int) -> list[int]:
    """Return the descendants of a process, the nearest first."""
    parents = {child: parent for child in processes() if (parent := parent_of(child))}
    tree = [pid]
    for each in tree:
        tree += [child for child, parent in parents.items() if parent == each]
    return tree[1:]


def parent_of(pid: int) -> int | None:
    """Return a process's parent, None once the process has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


# Slurm

SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={path}/munge.socket,cred_expire=5
SlurmctldPort={control}
SlurmdPort={node}
StateSaveLocation={path}/state
SlurmdSpoolDir={path}/spool
SlurmctldPidFile={path}/slurmctld.pid
SlurmdPidFile={path}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
{accounting}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
MpiDefault=none
SwitchType=switch/none
JobRequeue=1
KillWait={kill_wait}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{preemption}
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES PriorityTier=1 GraceTime={grace} State=UP
PartitionName=urgent Nodes={host} PriorityTier=2 PreemptMode=OFF State=UP
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={path}/munge.socket
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={path}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
PidFile={path}/slurmdbd.pid
"""


@contextmanager
def slurm(
    cpus: int | None = None, grace: int = 10, user_signal: bool = True, kill_wait: int = 5, accounting: bool = False
) -> Iterator[Path]:
    """Start a Slurm of one node, this machine; yield the file that its commands want named in `SLURM_CONF`.

    Jobs of the partition `urgent` put those of the default one, `tests`, back into the queue: these get `grace`
    seconds, begun by SIGTERM or, with `user_signal` and where they asked for one, by the job's own `--signal`. Only
    with `accounting` does `sacct` answer.
    """
    require_slurm(accounting)
    with folder("slurm") as path, ExitStack() as stack:
        env = os.environ | {"SLURM_CONF": str(path / "slurm.conf"), "PATH": SYSTEM_PATH}
        if accounting:
            env["MYSQL_UNIX_PORT"] = str(stack.enter_context(mariadb()))
        facts = {"cpus": cpus or os.cpu_count(), "grace": grace, "kill_wait": kill_wait}
        write_slurm_conf(path, accounting, preemption=PREEMPT_SIGNAL if user_signal else "", **facts)
        started = []
        for name, (command, ready) in slurm_daemons(path, accounting).items():
            started.append(stack.enter_context(daemon(command, path / f"{name}.log", env=env)))
            wait_for(partial(ready, env), f"{name} did not come up", *started)
        stack.callback(cancel_all, env)
        yield path / "slurm.conf"


def require_slurm(accounting: bool) -> None:
    """Raise `NotHere` if a daemon is missing."""
    wanted = ["munged", "slurmctld", "slurmd", "srun", *(["slurmdbd", "mariadbd"] if accounting else [])]
    missing = [name for name in wanted if not shutil.which(name, path=SYSTEM_PATH)]
    if missing:
        packages = "slurmctld slurmd slurm-client munge" + (" slurmdbd mariadb-server" if accounting else "")
        raise NotHere(f"not here: {', '.join(missing)} (Debian's packages {packages})")


@contextmanager
def mariadb() -> Iterator[Path]:
    """Start a MariaDB server; yield its Unix socket."""
    with folder("mariadb") as path:
        user = pwd.getpwuid(os.geteuid()).pw_name
        own = ["--no-defaults", f"--datadir={path}/data", f"--user={user}"]
        make = ["mariadb-install-db", *own, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(make, check=True, capture_output=True)
        socket_ = path / "socket"
        server = ["mariadbd", *own, "--skip-networking", f"--socket={socket_}", f"--pid-file={path}/pid"]
        with daemon(server, path / "mariadb.log", env=os.environ | {"PATH": SYSTEM_PATH}) as process:
            wait_for(socket_.exists, "MariaDB did not come up", process)
            yield socket_


PREEMPT_SIGNAL = "SlurmctldParameters=preempt_send_user_signal"
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def write_slurm_conf(path: Path, accounting: bool, **facts: object) -> None:
    """The configuration, in a folder that munge and Slurm accept, and the key that its processes know each other by."""
    (path / "state").mkdir()
    (path / "spool").mkdir()
    path.chmod(0o755)
    private(path / "munge.key", os.urandom(128))
    control, node, database = free_ports(3)
    facts |= {"host": host(), "user": pwd.getpwuid(os.geteuid()).pw_name, "control": control, "node": node}
    facts["accounting"] = ACCOUNTING.format(path=path, port=database) if accounting else ""
    (path / "slurm.conf").write_text(SLURM_CONF.format(path=path, **facts))
    (path / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    private(path / "slurmdbd.conf", SLURMDBD_CONF.format(path=path, port=database, **facts).encode())


def private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read."""
    path.touch(0o600)
    path.write_bytes(content)


def host() -> str:
    """Return the machine's name by which Slurm's daemons find themselves."""
    return socket.gethostname().partition(".")[0]


Ready = Callable[[dict[str, str]], bool]


def slurm_daemons(path: Path, accounting: bool) -> dict[str, tuple[list[str], Ready]]:
    """The daemons' commands, and what tells that each is ready for the next one, in the order in which they begin."""
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munge.seed"}
    munged = ["munged", "--foreground", "--num-threads=1", *(f"--{key}={path / name}" for key, name in files.items())]
    database = {"slurmdbd": (["slurmdbd", "-D"], knows_cluster)} if accounting else {}
    return {
        "munged": (munged, lambda _: (path / "munge.socket").exists()),
        **database,
        "slurmctld": (["slurmctld", "-D"], lambda env: succeeds("scontrol", "ping", env=env)),
        "slurmd": (["slurmd", "-D", "-N", host()], lambda env: bool(output(["sinfo", "-h", "-t", "idle"], env))),
    }


def knows_cluster(env: dict[str, str]) -> bool:
    """Register the cluster; return whether the accounts' database answers."""
    succeeds("sacctmgr", "-i", "add", "cluster", "tests", env=env)
    return "tests" in output(["sacctmgr", "-n", "show", "cluster"], env)


def cancel_all(env: dict[str, str]) -> None:
    """End every job, and wait until the node has released them."""
    subprocess.run(["scancel", "--user", pwd.getpwuid(os.geteuid()).pw_name], env=env, capture_output=True, check=False)
    queue = ["squeue", "-h"]
    with suppress(RuntimeError):
        wait_for(lambda: not output(queue, env), "Slurm's jobs did not end", seconds=20)
