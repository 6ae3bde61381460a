"""The page that scores mammograms which are dropped on it."""
