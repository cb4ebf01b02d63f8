"""The stages of a run: how fast each is and what limits it, and the verdict on which one holds the run back."""
