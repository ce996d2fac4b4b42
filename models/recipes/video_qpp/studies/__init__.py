"""Side studies of query performance prediction: no released model needs them."""
