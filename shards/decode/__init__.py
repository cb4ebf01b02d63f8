"""From stored bytes to the pixels of a batch: the DALI graph, and on a CPU what follows it.

Pixels of float batches are (pixel / 255 - MEAN) / STD for each channel.
"""

# Mean and standard deviation of ImageNet's training pixels, red, green and blue, scaled to [0, 1]: the values that
# torchvision's references and its pretrained weights use.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Images that a GPU decodes at a time where batches are smaller: its JPEG engines and cores work on many at once, and a
# graph costs the same launches for few. An estimate: no GPU was there to measure on.
DECODED_TOGETHER = 256
