"""Trains a network of timm with timm's optimizer, schedule and scaler. Run again after a stop, it goes on.

torchrun --standalone --nproc-per-node 8 docs/examples/timm_loop.py --data /data/imagenet --out Results/timm
"""

import argparse
from pathlib import Path

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import NativeScaler, init_distributed_device, reduce_tensor
from torch import nn

from shards import Loader, open_dataset


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=128, help="of each process")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--save-steps", type=int, default=1000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(words)
    args.out.mkdir(parents=True, exist_ok=True)
    device, splits = init_distributed_device(args), open_dataset(args.data)  # sets rank, world_size, distributed
    ours = {"batch_size": args.batch_size, "size": args.size, "rank": args.rank, "world_size": args.world_size}
    ours |= {"device": "gpu", "device_id": device.index or 0} if device.type == "cuda" else {}
    loader_train = Loader(splits["train"], train=True, **ours)
    loader_eval = Loader(splits.validation, train=False, **ours)

    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=len(splits["train"].class_names)).to(device)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, momentum=0.9, weight_decay=5e-5)
    steps = {"step_on_epochs": False, "updates_per_epoch": len(loader_train)}
    scheduler, num_epochs = create_scheduler_v2(optimizer, num_epochs=args.epochs, warmup_epochs=5, **steps)
    scaler, updates = NativeScaler(device.type), 0
    parts = {"model": model, "optimizer": optimizer, "scaler": scaler, "loader": loader_train}
    checkpoint, unfinished = args.out / "last.pt", args.out / "unfinished.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        updates = saved.pop("updates")
        for name, state in saved.items():
            parts[name].load_state_dict(state)
    wrapped = nn.parallel.DistributedDataParallel(model) if args.distributed else model

    for epoch in range(loader_train.epoch, num_epochs):
        loader_train.sampler.set_epoch(epoch)  # as timm's train.py does; a position in this epoch stays
        wrapped.train()
        scheduler.step_update(updates)
        for images, target in loader_train:  # after a stop in the middle of an epoch, the rest of it
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                loss = nn.functional.cross_entropy(wrapped(images), target)
            optimizer.zero_grad()
            scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters())
            updates += 1
            scheduler.step_update(updates)
            if args.rank == 0 and updates % args.save_steps == 0:
                states = {name: part.state_dict() for name, part in parts.items()}
                torch.save({**states, "updates": updates}, unfinished)
                unfinished.replace(checkpoint)
        model.eval()
        right = torch.zeros((), device=device)
        with torch.no_grad():
            for images, target in loader_eval:  # ranks may differ by a batch, so they talk only at the end
                right += (model(images).argmax(1) == target).sum()
        if args.distributed:
            right = reduce_tensor(right, 1)  # the sum
        if args.rank == 0:
            print(f"epoch {epoch + 1}: {right.item() / len(loader_eval.dataset):.2%} of the images are right")


if __name__ == "__main__":
    main()
