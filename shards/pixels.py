"""What the float values of a batch mean."""

# Mean and standard deviation of ImageNet's training pixels, red, green and blue, for pixels scaled
# to [0, 1]: the values that torchvision's references and its pretrained weights use.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
