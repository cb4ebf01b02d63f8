"""The forms in which people have ImageNet and Tiny-ImageNet: the archives, Kaggle's folders, torchvision's root."""
