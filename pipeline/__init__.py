"""The contract between stages: options, errors, the manifest, records. Standard library only."""
