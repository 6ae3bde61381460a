"""A plain folder of images: in class folders, or with a table; with or without splits."""
