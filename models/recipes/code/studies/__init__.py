"""Side studies of the code model: no released model needs them."""
