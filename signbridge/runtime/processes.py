"""Which of the processes of a distributed run this is, known without torch."""

from __future__ import annotations

import os
import sys


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
