"""Side studies of the NLI models: no released model needs them."""
