"""How each model was made (`python -m recipes.code.train`). Nothing imports a recipe."""
