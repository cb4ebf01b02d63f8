"""The contract on disk: names of files, the manifest, the index, tars of samples, and `verify`, which checks them."""
