"""One training loop for every model, and what it is made of."""
