"""The servers that Assay is compared with, each run as a module in its own environment."""
