"""CBIS-DDSM: its tables and files, and the dataset that is made of them."""
