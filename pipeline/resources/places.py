"""Names of what is kept beside the results to save time: all of it can be made anew."""

CACHE = ".cache"  # in a dataset; the dot hides it from whoever looks for images
PIXELS = "pixels"  # in it: suffix of the files of decoded images
FROZEN = "frozen"  # in it: outputs of frozen layers
WORKING = "working"  # in a preprocessed dataset: images before blur and contrast
HEADERS = "headers.jsonl"  # in a dataset: what the headers of the download say
TRIALS = "trials"  # in a study: what trials write while they run
LEAKAGE = ".leakage"  # in the folder of runs: datasets and trainings of --price-of-leakage
# In a dataset: what a check of the download found, and the series to download again.
CHECKED = ("check.csv", "check_notes.csv", "missing.tcia")
# In the folder of runs, of `compare --anomaly`: scores of images, and what networks cost.
ANOMALY, COSTS = ".anomaly", ".costs"
