"""The processes of a distributed run: which one this is, and how Lightning is asked for them.

Nothing here imports torch before it is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from signbridge.errors import SignBridgeError, first_line
from signbridge.runtime.terminal import quiet_lightning

if TYPE_CHECKING:
    from lightning.fabric.plugins import ClusterEnvironment
    from lightning.pytorch import Trainer

PATIENCE = timedelta(days=7)
"""How long a process waits for the slowest of them, or for the one that writes."""


def is_first_process() -> bool:
    """Return whether this process is the one that speaks to the user.

    Lightning knows once it is loaded. Before that the environment tells: torchrun and Lightning's
    own launcher number the processes of each machine in ``LOCAL_RANK`` and all of them in ``RANK``,
    SLURM's srun in ``SLURM_PROCID``. Outside a distributed run there is one process.
    """
    lightning = sys.modules.get("lightning.fabric.utilities.rank_zero")
    rank = getattr(getattr(lightning, "rank_zero_only", None), "rank", None)
    if rank is not None:
        return bool(rank == 0)
    numbers = [os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")]
    return all(number in (None, "", "0") for number in numbers)


def process_settings(accelerator: str, devices: int | str, num_nodes: int) -> dict[str, Any]:
    """Arguments of Lightning's Trainer and Fabric for the processes of a job.

    Args:
        accelerator: as Lightning takes it.
        devices: how many, as Lightning takes it.
        num_nodes: number of machines.

    Raises:
        ValueError: this process is part of a cluster's job that it cannot find its way in.
    """
    return {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "plugins": _environment(),
    }


def _environment() -> ClusterEnvironment | None:
    """The cluster's job that this process is part of; None where Lightning finds it by itself."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.lsf import LSFEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():  # inside a SLURM job too its own ranks go first
        return None
    if SLURMEnvironment.detect():
        if "SLURM_STEP_NUM_TASKS" not in os.environ:  # srun alone sets it: not its process
            return LightningEnvironment()
        tasks = os.environ.get("SLURM_NTASKS", "1")
        if tasks != "1" and "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise ValueError(
                f"srun started {tasks} tasks without saying how many on each node: add "
                "--ntasks-per-node and give --devices the same number"
            )
        # Requeueing by Lightning would write a checkpoint of its own.
        return SLURMEnvironment(auto_requeue=False)
    if LSFEnvironment.detect():
        try:
            return LSFEnvironment()
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"the variables of an LSF job are set, but its ranks cannot be read ({error}): "
                "start it with jsrun, or unset LSB_JOBID"
            ) from error
    return None


def plain_trainer(**arguments: Any) -> Trainer:
    """A Trainer without logger, bar and summary, whose data modules share out the samples."""
    from lightning.pytorch import Trainer

    return Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **arguments,
    )


@contextmanager
def had_or_refused(what: str, where: str, error: type[SignBridgeError]) -> Iterator[None]:
    """Say in one sentence that processes cannot be had, whatever Lightning raises.

    Args:
        what: the arguments, as the sentence names them.
        where: the machine or a device of it.
        error: what to raise.
    """
    try:
        with quiet_lightning(every_warning=True):
            yield
    except Exception as reason:
        # Lightning raises a dozen types here, all of them for a combination that cannot be had.
        raise error(f"{what} cannot be had on {where}: {first_line(reason)}.") from reason
