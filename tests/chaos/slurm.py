"""A folder in, a Slurm of one node on loopback out, which takes and runs real jobs.

Needs root and Debian's `slurm-wlm` and `munge`. Daemons, keys, spool and ports are its own: a Slurm
that the machine has is not touched.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.processes import bound

NEEDS = "needs root, and Debian's slurm-wlm and munge"
_PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "sinfo")
_PATIENCE = 60.0

_SETTINGS = """\
ClusterName=canopycube
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=forest Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
"""


def is_there() -> bool:
    """Say whether what this module needs is at hand."""
    return os.geteuid() == 0 and all(shutil.which(program) for program in _PROGRAMS)


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A queue, `forest`, on this machine."""

    settings: Path
    """Its slurm.conf, for whoever sets SLURM_CONF."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which Slurm's commands find it."""
        return {"SLURM_CONF": str(self.settings)}

    def jobs(self) -> list[int]:
        """Return the numbers of the jobs that run or wait."""
        return [int(number) for number in self._ask("squeue", "-h", "-o", "%i").split()]

    def cancel(self, job: int) -> None:
        """Take a job from its user, as `scancel` does."""
        self._ask("scancel", str(job))

    def is_idle(self) -> bool:
        """Say whether the node waits for work."""
        try:
            return "idle" in self._ask("sinfo", "-h", "-o", "%T")
        except subprocess.CalledProcessError:
            return False

    def _ask(self, *words: str) -> str:
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, check=True, timeout=30
        ).stdout


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Yield a Slurm whose node waits for jobs; it ends with the body, and its jobs with it.

    `folder` must have a short path: that of a socket has 108 letters.
    """
    for name in ("state", "spool", "log"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    controller, node = _free_ports(2)
    made = Slurm(settings=folder / "slurm.conf")
    made.settings.write_text(
        _SETTINGS.format(
            host=socket.gethostname(),
            controller=controller,
            node=node,
            folder=folder,
            cores=os.cpu_count(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 >> 20,
        )
    )
    with ExitStack() as stack:
        munge = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "seed-file")]
        munge += [f"--key-file={key}", f"--log-file={folder}/log/munged"]
        _daemon(stack, folder, ["munged", "--foreground", "--force", *munge])
        _wait(lambda: (folder / "munge.socket").exists(), folder, "munged listens")
        for program in ("slurmctld", "slurmd"):
            _daemon(stack, folder, [program, "-D", "-f", str(made.settings)])
        _wait(made.is_idle, folder, "the node of Slurm is idle")
        stack.callback(_end_jobs, made)
        yield made


def _daemon(stack: ExitStack, folder: Path, words: Sequence[str]) -> None:
    with (folder / "log" / f"{words[0]}.out").open("wb") as log:
        process = subprocess.Popen(
            [*bound(), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    stack.callback(_end, process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_jobs(made: Slurm) -> None:
    """Cancel what is left; a job outlives the daemons."""
    with contextlib.suppress(subprocess.SubprocessError):
        for job in made.jobs():
            made.cancel(job)
        deadline = time.monotonic() + 20
        while made.jobs() and time.monotonic() < deadline:
            time.sleep(0.2)


def _wait(is_so: Callable[[], bool], folder: Path, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            said = {log.name: log.read_text()[-500:] for log in (folder / "log").iterdir()}
            raise AssertionError(f"not within {_PATIENCE:.0f} s: {what}; {said}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
