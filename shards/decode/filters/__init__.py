"""The sums of the antialiased resize, each with the weights of its filter."""
