"""From images to a step of the weights: the batch split and GPU memory, mixing of images, optimizer and schedule."""
