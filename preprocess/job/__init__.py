"""Makes all shards of a data set: which rows go where, who makes them, how a job is resumed, finished and repaired."""
