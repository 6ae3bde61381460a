"""Where in an image a network finds its evidence, and whether such a map can be believed."""
