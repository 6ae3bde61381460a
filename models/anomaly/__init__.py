"""Networks that learn what normal images look like: no label of a lesion is ever shown to them."""
