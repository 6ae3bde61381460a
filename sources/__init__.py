"""One module for each public collection, and the reading and writing of image files."""
