"""What a trained model is worth: measures, intervals, comparisons."""
