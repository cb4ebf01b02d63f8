"""Trains ResNet-18 in plain PyTorch, alone or under torchrun. Run again after a stop, it goes on with the next batch.

torchrun --standalone --nproc-per-node 8 docs/examples/plain.py --data /data/imagenet --out Results/plain
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
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
    args.out.mkdir(parents=True, exist_ok=True)
    alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", **alone)
    try:
        train(args, dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    finally:
        dist.destroy_process_group()


def train(args: argparse.Namespace, rank: int, world_size: int, local_rank: int) -> None:
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    splits, ours = open_dataset(args.data), {"batch_size": args.batch_size, "size": args.size}
    ours |= {"rank": rank, "world_size": world_size, "device": "auto", "device_id": local_rank}
    training, validation = Loader(splits["train"], train=True, **ours), Loader(splits.validation, train=False, **ours)
    torch.manual_seed(0)
    model = DistributedDataParallel(resnet18(num_classes=len(splits["train"].class_names)).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * args.batch_size * world_size / 256, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(training))
    parts = {"model": model.module, "optimizer": optimizer, "schedule": schedule, "loader": training}
    checkpoint, unfinished = args.out / "last.pt", args.out / "unfinished.pt"
    if checkpoint.exists():
        for name, state in torch.load(checkpoint, map_location=device, weights_only=True).items():
            parts[name].load_state_dict(state)
    for epoch in range(training.epoch, args.epochs):
        model.train()
        for images, labels in training:  # after a stop in the middle of an epoch, the rest of it
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if rank == 0 and schedule.last_epoch % args.save_steps == 0:  # a loader's state is the same on all ranks
                torch.save({name: part.state_dict() for name, part in parts.items()}, unfinished)
                unfinished.replace(checkpoint)
        accuracy = evaluate(model.module.eval(), validation, device)
        if rank == 0:
            print(f"epoch {epoch + 1}: {accuracy:.2%} of the validation images are right")


@torch.no_grad()
def evaluate(model: torch.nn.Module, validation: Loader, device: torch.device) -> float:
    right = torch.zeros((), device=device)
    for images, labels in validation:  # ranks may differ by a batch, so they talk to each other only at the end
        right += (model(images).argmax(1) == labels).sum()
    dist.all_reduce(right)
    return right.item() / len(validation.dataset)


if __name__ == "__main__":
    main()
