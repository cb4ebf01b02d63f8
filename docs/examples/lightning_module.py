"""Trains ResNet-18 with Lightning. Run again after a stop, it goes on with the next batch.

python docs/examples/lightning_module.py --data /data/imagenet --out Results/lightning
"""

import argparse

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F
from torchvision.models import resnet18

from shards import Loader, Split, open_dataset


class Classifier(lightning.LightningModule):
    def __init__(self, data: str, batch_size: int, size: int) -> None:
        super().__init__()
        self.splits, self.batch_size, self.size = open_dataset(data), batch_size, size
        self.model = resnet18(num_classes=len(self.splits["train"].class_names))

    def loader(self, split: Split, train: bool) -> Loader:
        return Loader(
            split,
            batch_size=self.batch_size,
            train=train,
            size=self.size,
            device="auto" if self.device.type == "cuda" else "cpu",
            device_id=self.device.index or 0,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def train_dataloader(self) -> Loader:  # Lightning saves its state, restores it, and announces each epoch to it
        return self.loader(self.splits["train"], train=True)

    def val_dataloader(self) -> Loader:
        return self.loader(self.splits.validation, train=False)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> None:
        images, labels = batch
        right = (self.model(images).argmax(1) == labels).float().mean()
        # Averaged by the size of each batch, and over the ranks once at the end: ranks may differ by a batch.
        self.log("accuracy", right, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=len(labels))

    def configure_optimizers(self) -> dict[str, object]:
        # trainer.estimated_stepping_batches makes the loader too early: the state in the checkpoint is then lost,
        # https://github.com/Lightning-AI/pytorch-lightning/issues/20550
        batches = len(self.splits["train"]) // (self.batch_size * self.trainer.world_size)
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs * batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=128, help="of each process")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--save-steps", type=int, default=1000)
    args = parser.parse_args(words)

    lightning.seed_everything(0)
    saver = ModelCheckpoint(args.out, every_n_train_steps=args.save_steps, save_last=True, save_top_k=1)
    trainer = lightning.Trainer(max_epochs=args.epochs, callbacks=[saver], default_root_dir=args.out)
    # "last" is the newest checkpoint in --out, in the middle of an epoch too, or none.
    trainer.fit(Classifier(args.data, args.batch_size, args.size), ckpt_path="last")


if __name__ == "__main__":
    main()
