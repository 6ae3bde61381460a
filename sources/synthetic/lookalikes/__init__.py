"""Look-alikes of the other collections: one module each, true to the file formats."""
