"""Pictures and what is done to them; knows no model and no collection."""
