"""The whole questionnaire: the options of every stage, a file a part."""
