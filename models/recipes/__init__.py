"""The recipes: one folder for each model that is trained here. No product code imports them."""
