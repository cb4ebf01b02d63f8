"""Images inside tar archives, read in place: the table of their members, and tars of WebDataset."""
