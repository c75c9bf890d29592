"""An architecture with freshly initialised weights: the control for what training has put there.

The numbers are those of transformers' own initialisation: ``torch.manual_seed(seed)``, then
``AutoModelForImageTextToText.from_config`` in float32 on the CPU. So they depend on neither device
nor threads nor quantisation. They are then loaded as a checkpoint's are.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from signbridge.errors import ModelError, first_line
from signbridge.model.families import SHUT_AT_FIRST
from signbridge.runtime.terminal import quiet_transformers

IN_MEMORY_BYTES = 2**30
"""Weights of at most this size, in float32, are made in memory, larger ones in a file."""

_SMALL_TENSOR = 2**16  # bytes; smaller ones stay in memory


def model_skeleton(config: Any, most: int | None = None) -> PreTrainedModel:
    """The vision-language model of a configuration on the ``meta`` device: shapes, no values.

    Args:
        config: a transformers configuration, such as ``LlavaConfig``.
        most: parameters that it may have, by default any number.

    Raises:
        ValueError: if it asks for more, as soon as they are reached, or transformers has no
            vision-language model for it.
    """
    from transformers import AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText
    with torch.device("meta"), quiet_transformers(), _at_most(most):
        skeleton = auto.from_config(config)
    assert isinstance(skeleton, PreTrainedModel)
    return skeleton


@contextlib.contextmanager
def _at_most(parameters: int | None) -> Iterator[None]:
    """Stop the making of a model that becomes too large."""
    made = 0

    def count(module: Any, name: str, parameter: Any) -> None:
        nonlocal made
        made += 1
        if parameters is not None and made > parameters:
            raise ValueError(
                f"it asks for more than {parameters:,} weight tensors, which is far more than "
                "there are"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def random_model(
    config: Any, seed: int, skeleton: PreTrainedModel | None = None, **options: Any
) -> Any:
    """Load the initial weights of an architecture as those of a checkpoint are loaded.

    No weights are read or downloaded. Memory is needed for the model as loaded and, on the CPU, for
    one tensor in float32: weights above :data:`IN_MEMORY_BYTES` are made in an unnamed file in the
    temporary folder (``TMPDIR``), four bytes each, which vanishes with the process. Processes of
    one machine take turns, so that there is one such file at a time.

    Args:
        config: a transformers configuration, such as ``LlavaConfig``.
        seed: of the initialisation.
        skeleton: of :func:`model_skeleton`, if it is there already.
        options: of ``from_pretrained``: dtype, device, quantisation.

    Raises:
        ModelError: if the temporary folder has not the room.
    """
    shapes = model_skeleton(config) if skeleton is None else skeleton
    on_disk = _float32_bytes(shapes) > IN_MEMORY_BYTES and os.name != "nt"
    with _turn() if on_disk else contextlib.nullcontext():
        kind: Any = type(shapes)
        state = initial_weights(config, seed, shapes)
        with quiet_transformers():
            model, report = kind.from_pretrained(
                None,
                config=_own_config(config),
                state_dict=state,
                output_loading_info=True,
                **options,
            )
    left = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    if left:
        raise ModelError(
            f"transformers does not take back its own initial weights of {type(shapes).__name__} "
            f"({left[0]}): use another version of it."
        )
    return model


def initial_weights(
    config: Any, seed: int, skeleton: PreTrainedModel | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of transformers' own initialisation, float32 on the CPU, by name.

    Where that lets no image in (:data:`~signbridge.model.families.SHUT_AT_FIRST`), gates are 1 and
    projections as random as the other weights: a control that sees no image controls nothing.
    torch's global random state is left as it was.

    Args:
        config: a transformers configuration.
        seed: of the initialisation.
        skeleton: of :func:`model_skeleton`, if it is there already.

    Raises:
        ModelError: if the temporary folder has not the room for weights that are made in a file.
    """
    from transformers import AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText
    needed = _float32_bytes(model_skeleton(config) if skeleton is None else skeleton)
    where: Any = contextlib.nullcontext()
    if needed > IN_MEMORY_BYTES and os.name != "nt":  # Windows keeps a file that is in use
        where = _InFile(needed)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), quiet_transformers():
        torch.default_generator.manual_seed(seed)
        with where:
            model = auto.from_config(_own_config(config), dtype=torch.float32)
        spread = getattr(config.get_text_config(), "initializer_range", 0.02)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name.endswith(SHUT_AT_FIRST):
                    if value.numel() == 1:
                        value.fill_(1)
                    else:
                        value.normal_(std=spread)
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def initialiser() -> str:
    """What made the numbers: another version may initialise otherwise from the same seed."""
    return f"transformers {version('transformers')}, torch {torch.__version__.partition('+')[0]}"


class _InFile(TorchDispatchMode):
    """Gives large float32 tensors that are made within it their memory in a file.

    The kernel writes to the disk what the memory does not hold. The file has no name, so nothing
    is left of it, whatever ends the process.

    Args:
        size: bytes; what does not fit any more is made in memory as usual.
    """

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._used = 0
        # The space is taken now: a mapped file on a full disk would end the process.
        self._storage = _unnamed_storage(size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer the making of an empty tensor; pass everything else on."""
        kwargs = kwargs or {}
        if func is not torch.ops.aten.empty.memory_format:
            return func(*args, **kwargs)
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        size = 4 * math.prod(args[0])
        fits = self._used + size <= self._storage.nbytes()
        device = kwargs.get("device")
        on_cpu = device is None or torch.device(device).type == "cpu"
        if dtype != torch.float32 or size < _SMALL_TENSOR or not fits or not on_cpu:
            return func(*args, **kwargs)
        strides = torch.empty(args[0], device="meta").stride()
        tensor = torch.empty(0, dtype=torch.float32, device="cpu")
        tensor.set_(self._storage, self._used // 4, tuple(args[0]), strides)
        self._used += size
        return tensor


def _unnamed_storage(size: int) -> torch.UntypedStorage:
    folder = tempfile.gettempdir()
    try:
        handle, name = tempfile.mkstemp(prefix="signbridge-random-")
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            return cast(torch.UntypedStorage, torch.UntypedStorage.from_file(name, True, size))
        finally:
            os.close(handle)
            Path(name).unlink()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"Random weights of this model take {size / 1e9:.1f} GB in the temporary folder "
            f"{folder}, which cannot hold them ({first_line(error)}): set TMPDIR to a folder with "
            "more room."
        ) from error


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Let the processes of this user and machine load one after the other."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"signbridge-random-{os.getuid()}.lock")
    try:
        lock.acquire()
    except (OSError, NotImplementedError):  # a folder without locks: all at once
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _own_config(config: Any) -> Any:
    """A copy to write into, without the quantisation of a checkpoint that is not read."""
    own = copy.deepcopy(config)
    if hasattr(own, "quantization_config"):
        del own.quantization_config
    return own


def _float32_bytes(skeleton: PreTrainedModel) -> int:
    return 4 * sum(p.numel() for p in skeleton.parameters())
