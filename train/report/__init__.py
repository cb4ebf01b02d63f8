"""What a run measures and leaves behind: the training clock, the files of --out, TensorBoard and W&B."""
