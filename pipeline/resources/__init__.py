"""What the work takes: bytes on the disk, seconds, and what is kept beside the results."""
