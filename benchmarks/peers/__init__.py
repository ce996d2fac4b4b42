"""The servers that Assay is measured beside, each run as a module in an environment of its own."""
