"""The names of the stages and of the limits of the machine, by which results of benchmarks/stages/ladder.py are read.

Apart from it, because it brings torch and DALI.
"""

READ_COLD, READ, DECODE, LOADER = "read, cold", "read", "+ decode", "loader"
ON_GPU, COPY = "loader, GPU", "copy to GPU"
DISK, CACHE, LIBJPEG = "disk, cold", "page cache", "libjpeg-turbo alone"
# What limits each stage; the page cache where the images are stored decoded.
LIMIT = {READ_COLD: DISK, READ: CACHE, DECODE: LIBJPEG, LOADER: LIBJPEG, ON_GPU: CACHE}
