"""Models as rows of data, and the one training loop, evaluation and prediction for all of them."""
