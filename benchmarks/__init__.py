"""The benchmarks of Assay, its peers and the limits of the machine."""
