"""What runs on disk say: read into figures and words, before anything is laid out."""
