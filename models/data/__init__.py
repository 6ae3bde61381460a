"""A dataset on disk as tensors."""
