"""Train SignBridge's bundled stand-in model; README.md beside this file tells how."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn

from training import photographs
from training.stages import (
    Draws,
    make_distillation,
    train_model,
    train_teacher,
    train_tower,
)
from training.stand_in import TAUGHT_LAYERS, make_model, make_processor
from training.teacher import Teacher

STEPS = (500, 400, 1400)


def save_stand_in(model: object, folder: Path) -> None:
    """Write weights (bfloat16), configuration, tokenizer and processor to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = make_model(0)
    copy.load_state_dict(model.state_dict())  # type: ignore[attr-defined]
    copy.eval().to(torch.bfloat16).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner can read


def work(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """Run the three stages as one of several workers; the first of them writes."""
    torch.set_num_threads(1)
    if options.workers > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.workers
        )
    sources = [photographs.letters(options.data)]
    if options.digits is not None:
        sources.append(photographs.digits(options.digits))
    if rank == 0:
        print(
            f"{len(sources[0].sign):,} rows of letters ({sources[0].left_out} left out), "
            f"{len(sources[1].sign) if len(sources) > 1 else 0:,} digits",
            flush=True,
        )
    begun = time.monotonic()

    def draws(stage: int, batch: int = options.batch) -> Draws:
        return Draws(sources, batch, options.seed + 10 * stage, rank, options.workers)

    def say(stage: str, steps: int) -> Callable[[int, float], None]:
        def line(step: int, loss: float) -> None:
            if rank == 0 and (step % max(1, steps // 20) == 0 or step == steps):
                passed = time.monotonic() - begun
                print(f"{passed:6.0f} s  {stage} {step}/{steps}  loss {loss:.3f}", flush=True)

        return line

    processor = make_processor()
    teacher_steps, tower_steps, model_steps = options.steps
    work_folder: Path | None = options.work
    at_teacher = work_folder / "teacher.safetensors" if work_folder else None
    at_tower = work_folder / "tower.safetensors" if work_folder else None
    if at_teacher and at_teacher.is_file():
        teacher = Teacher()
        teacher.load_state_dict(load_file(at_teacher))
        teacher.eval()
    else:
        teacher = train_teacher(draws(1), teacher_steps, say("teacher", teacher_steps))
    if options.workers > 1:
        dist.barrier()
    if at_teacher and rank == 0:
        at_teacher.parent.mkdir(parents=True, exist_ok=True)
        save_file(teacher.state_dict(), at_teacher)
    distillation = make_distillation(teacher, draws(4))
    tower = make_model(options.seed, TAUGHT_LAYERS).model.vision_tower.train()
    parts = {"tower.": tower, "distillation.": distillation}
    if at_tower and at_tower.is_file():
        kept = load_file(at_tower)
        for name, part in parts.items():
            part.load_state_dict(
                {key.removeprefix(name): kept[key] for key in kept if key.startswith(name)}
            )
    else:
        train_tower(tower, teacher, distillation, draws(2), tower_steps, say("tower", tower_steps))
    if options.workers > 1:
        dist.barrier()
    if at_tower and rank == 0:
        save_file(
            {
                name + key: value
                for name, part in parts.items()
                for key, value in part.state_dict().items()
            },
            at_tower,
        )
    model = make_model(options.seed).train()
    kept_layers = model.model.vision_tower.state_dict().keys()
    model.model.vision_tower.load_state_dict(
        {name: weight for name, weight in tower.state_dict().items() if name in kept_layers}
    )
    report = say("model", model_steps)

    def say_and_save(step: int, loss: float) -> None:
        report(step, loss)
        if rank == 0 and (step % 100 == 0 or step == model_steps):
            save_stand_in(model, options.output)

    train_model(
        model,
        processor.tokenizer,
        teacher,
        draws(3, options.batch // 2),
        model_steps,
        say_and_save,
    )
    if rank == 0:
        print(f"{time.monotonic() - begun:.0f} s in all; {options.output}", flush=True)
    if options.workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sign_mnist_test.csv")
    parser.add_argument("--digits", type=Path, help="folder with one folder of images a digit")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--work", type=Path, help="folder that keeps finished stages")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument(
        "--steps", type=int, nargs=3, default=STEPS, metavar=("TEACHER", "TOWER", "MODEL")
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        if options.workers == 1:
            work(0, options, meeting)
        else:
            spawn(work, (options, meeting), nprocs=options.workers)


if __name__ == "__main__":
    main()
