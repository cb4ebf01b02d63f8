"""Trains ResNet-18 with Accelerate. Run again after a stop, it goes on with the next batch.

accelerate launch docs/examples/accelerate_script.py --data /data/imagenet --out Results/accelerate
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn import functional as F
from torchvision.models import resnet18

from shards import Loader, open_dataset


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=128, help="of each process")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--save-steps", type=int, default=1000)
    args = parser.parse_args(words)

    accelerator, splits = Accelerator(), open_dataset(args.data)
    ours = {
        "size": args.size,
        "device": "auto" if accelerator.device.type == "cuda" else "cpu",
        "device_id": accelerator.local_process_index,
        "rank": accelerator.process_index,
        "world_size": accelerator.num_processes,
    }
    training = Loader(splits["train"], batch_size=args.batch_size, train=True, **ours)
    validation = Loader(splits.validation, batch_size=args.batch_size, train=False, **ours)

    torch.manual_seed(0)
    model = resnet18(num_classes=len(splits["train"].class_names))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(training))
    model, optimizer = accelerator.prepare(model, optimizer)  # would return a loader as it is
    # A prepared schedule would step once for each process, since a DataLoader's length counts all of their batches.
    accelerator.register_for_checkpointing(training, schedule)

    checkpoints = sorted(args.out.glob("step-*"))  # those of earlier steps may be deleted
    if checkpoints:
        accelerator.load_state(str(checkpoints[-1]))

    for epoch in range(training.epoch, args.epochs):
        model.train()
        for images, labels in training:  # after a stop in the middle of an epoch, the rest of it
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            if schedule.last_epoch % args.save_steps == 0:
                accelerator.save_state(str(args.out / "unfinished"))
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    (args.out / "unfinished").rename(args.out / f"step-{schedule.last_epoch:09d}")
        right = torch.zeros((), device=accelerator.device)
        network = accelerator.unwrap_model(model).eval()
        with torch.no_grad():
            for images, labels in validation:  # ranks may differ by a batch, so they talk only at the end
                right += (network(images).argmax(1) == labels).sum()
        right = accelerator.reduce(right)
        accelerator.print(f"epoch {epoch + 1}: {right.item() / len(splits.validation):.2%} are right")
    accelerator.end_training()


if __name__ == "__main__":
    main()
