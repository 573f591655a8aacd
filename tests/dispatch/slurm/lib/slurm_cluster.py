"""A Slurm of one node on this machine, in a folder of its own: munge, slurmctld, slurmd and, with accounting, slurmdbd
on a MariaDB. From Debian's packages `slurm-wlm`, `munge`, `slurmdbd` and `mariadb-server`; needs root, and touches
nothing of a Slurm that is configured here already.

with Cluster.start(accounting=False) as cluster:
    subprocess.run(["squeue"], env=os.environ | cluster.env)
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NEEDS = ("munged", "slurmctld", "slurmd", "sbatch")
NEEDS_FOR_ACCOUNTS = ("slurmdbd", "mariadbd", "mariadb-install-db")

CONF = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=100000,bf_interval=2
MpiDefault=none
ReturnToService=2
# polls memory, as a container has no cgroups of its own to give away
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill,UsePss
KillWait=2
MessageTimeout=5
# so small that a sweep of the tests needs two arrays
MaxArraySize=3
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=16000
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PartitionName=main Nodes=node1 Default=YES MaxTime=INFINITE DefMemPerCPU=900 PreemptMode=OFF
PartitionName=low Nodes=node1 MaxTime=INFINITE DefMemPerCPU=900 PreemptMode=CANCEL
PartitionName=high Nodes=node1 MaxTime=INFINITE DefMemPerCPU=900 PreemptMode=OFF PriorityTier=10
"""
ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={ports[2]}
AccountingStoragePass={folder}/munge/socket
"""
DBD = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdPort={ports[2]}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounts
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


@dataclass
class Cluster:
    folder: Path
    name: str
    accounting: bool
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """What commands need to talk to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    @staticmethod
    def missing(*, accounting: bool) -> str | None:
        """Why none can be started here, or None."""
        needed = (*NEEDS, *(NEEDS_FOR_ACCOUNTS if accounting else ()))
        if absent := [n for n in needed if shutil.which(n, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
            return f"{', '.join(absent)} not installed (Debian: slurm-wlm munge slurmdbd mariadb-server)"
        return None if os.geteuid() == 0 else "starting a Slurm needs root"

    @staticmethod
    def start(*, accounting: bool) -> "Cluster":
        """In a few seconds; nothing is left running where it fails."""
        folder = Path(tempfile.mkdtemp(prefix="benchkit-slurm-", dir="/tmp"))  # a socket's path must be short
        cluster = Cluster(folder, "accounts" if accounting else "plain", accounting)
        try:
            cluster._start()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def _start(self) -> None:
        folder = self.folder
        folder.chmod(0o755)
        for name in ("munge", "state", "spool", "mysql"):
            (folder / name).mkdir()
        made = {"folder": folder, "name": self.name, "host": socket.gethostname().partition(".")[0], "ports": _ports(3)}
        (folder / "slurm.conf").write_text((CONF + (ACCOUNTS if self.accounting else "")).format(**made))
        self._start_munge()
        if self.accounting:
            self._start_accounts(DBD.format(**made))
        self.start_controller("-c")
        self._daemon("slurmd", "slurmd", "-N", "node1")
        _until(lambda: self.call("sinfo", "-h", "-o", "%T").strip() == "idle", "the node is idle")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o600)
        for path in (folder, folder / "key"):
            shutil.chown(path, "munge", "munge")
        options = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        given = [f"--{option}={folder / name}" for option, name in options.items()]
        _check(["runuser", "-u", "munge", "--", "munged", *given])
        self.pids["munged"] = _pid(folder / "pid")

    def _start_accounts(self, conf: str) -> None:
        data, sock = self.folder / "mysql", self.folder / "mysql" / "sock"
        shutil.chown(data, "mysql", "mysql")
        _check(["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db",
                "--auth-root-authentication-method=normal"])  # fmt: skip
        log = (self.folder / "mariadbd.log").open("w")
        server = subprocess.Popen(
            ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={sock}", "--skip-networking"],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self.pids["mariadbd"] = server.pid
        _until(sock.exists, "MariaDB answers")
        path = self.folder / "slurmdbd.conf"
        path.write_text(conf)
        path.chmod(0o600)
        self._daemon("slurmdbd", "slurmdbd", MYSQL_UNIX_PORT=str(sock))
        _until(lambda: "started" in (self.folder / "slurmdbd.log").read_text(), "slurmdbd has made its tables")

    def _daemon(self, name: str, *command: str, **env: str) -> None:
        pid_file = self.folder / f"{name}.pid"
        pid_file.unlink(missing_ok=True)
        _check(list(command), env=os.environ | self.env | env)
        self.pids[name] = _pid(pid_file)

    def start_controller(self, *options: str) -> None:
        """`-c`: without a memory of any job."""
        self._daemon("slurmctld", "slurmctld", *options)
        _until(lambda: self.call("scontrol", "ping").count(" is UP"), "slurmctld answers")

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def call(self, *command: str) -> str:
        """Runs a command of Slurm's; its output, also where it fails."""
        done = subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, timeout=60)
        return done.stdout

    def steps(self, job: str = "") -> list[psutil.Process]:
        """Slurm's own processes that watch over what jobs, or one job, run: `slurmstepd: [12.batch]`."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
                title = " ".join(process.cmdline())
                known = title.startswith(f"slurmstepd: [{job}." if job else "slurmstepd: ")
                # its title is written over the beginning of its environment, which psutil then takes for the end
                if known and f"{self.folder}/".encode() in Path(f"/proc/{process.pid}/environ").read_bytes():
                    found.append(process)
        return found

    def stop(self) -> None:
        """Ends what was started, jobs included, and removes the folder."""
        if "slurmctld" in self.pids:
            self.call("scancel", "--quiet", "--user=root")
        for name in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._end(name, signal.SIGKILL)
        for step in self.steps():  # they outlive slurmd
            for process in [*step.children(recursive=True), step]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        pid = self.pids.pop(name, None)
        if pid is not None and _runs(pid):
            os.kill(pid, how)
            _until(lambda: not _runs(pid), f"{name} has ended")

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # init may take its time to bury a daemon
    except psutil.NoSuchProcess:
        return False


def _ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _pid(path: Path) -> int:
    _until(lambda: path.exists() and path.read_text().strip().isdigit(), f"{path.name} is written")
    return int(path.read_text())


def _check(command: list[str], env: dict[str, str] | None = None) -> None:
    path = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    done = subprocess.run(command, env=(env or dict(os.environ)) | path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


def _until(true: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"after {within_s:.0f} s not yet: {what}"
        time.sleep(0.1)
