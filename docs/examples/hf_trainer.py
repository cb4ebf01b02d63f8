"""Trains a ResNet with Hugging Face's Trainer. Run again after a stop, it goes on with the next batch.

torchrun --standalone --nproc-per-node 8 docs/examples/hf_trainer.py --data /data/imagenet --out Results/hf
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from shards import Loader, open_dataset


class LoaderTrainer(Trainer):
    def __init__(self, training: Loader, validation: Loader, **options) -> None:
        super().__init__(eval_dataset=validation.dataset, **options)
        self.training, self.validation = training, validation

    def get_train_dataloader(self) -> Loader:
        return self.training

    def get_eval_dataloader(self, eval_dataset=None) -> Loader:
        return self.validation


class SaveLoader(TrainerCallback):
    """Saves the loader's state in each checkpoint. Trainer saves none: it would skip batches, but for its argument."""

    def on_save(self, args, state, control, train_dataloader, **others) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            (folder / "loader.json").write_text(json.dumps(train_dataloader.state_dict()))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=128, help="of each process")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--save-steps", type=int, default=1000)
    args = parser.parse_args(words)
    settings = TrainingArguments(
        str(args.out), num_train_epochs=args.epochs, per_device_train_batch_size=args.batch_size, learning_rate=1e-3,
        eval_strategy="epoch", save_steps=args.save_steps, report_to="none", ignore_data_skip=True,
    )  # fmt: skip
    splits, ours = open_dataset(args.data), {"batch_size": args.batch_size, "size": args.size}
    ours |= {"keys": ("pixel_values", "labels"), "rank": settings.process_index, "world_size": settings.world_size}
    if settings.device.type == "cuda":
        ours |= {"device": "gpu", "device_id": settings.device.index}
    training = Loader(splits["train"], train=True, **ours)
    # Trainer gathers after every batch of an evaluation, so all ranks need as many batches.
    validation = Loader(splits.validation, train=False, drop_last=settings.world_size > 1, **ours)
    torch.manual_seed(0)
    trainer = LoaderTrainer(
        training,
        validation,
        model=ResNetForImageClassification(ResNetConfig(num_labels=len(splits["train"].class_names))),
        args=settings,
        callbacks=[SaveLoader()],
        compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(1) == found.label_ids).mean()},
    )
    checkpoint = get_last_checkpoint(args.out) if args.out.exists() else None
    if checkpoint is not None:
        training.load_state_dict(json.loads(Path(checkpoint, "loader.json").read_text()))
    trainer.train(resume_from_checkpoint=checkpoint)


if __name__ == "__main__":
    main()
