"""A synthetic look-alike of CBIS-DDSM."""
