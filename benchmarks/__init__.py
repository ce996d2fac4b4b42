"""The harness that measures Assay, its peers and the limits of the machine it runs on."""
