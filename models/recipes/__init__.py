"""How each model was made: `python -m recipes.code.train` and its like. Nothing imports a recipe."""
