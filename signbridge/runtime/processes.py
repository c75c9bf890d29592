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
    """
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    # Inside a SLURM job, torchrun's own ranks go first, as they do for Lightning. Requeueing by
    # Lightning would write a checkpoint of its own.
    slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "plugins": SLURMEnvironment(auto_requeue=False) if slurm else None,
    }


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
