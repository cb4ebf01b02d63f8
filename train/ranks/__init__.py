"""Several processes: who they are, how they find each other and exchange values, and how they train one network."""
