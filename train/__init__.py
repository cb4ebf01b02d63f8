"""Training on a data set of shards: `python -m train --data DIR`, or `train.engine.train(Config(...))`."""
