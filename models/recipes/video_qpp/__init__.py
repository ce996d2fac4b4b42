"""How `video-qpp@2` was made: frozen sentence embeddings and linear models on VQPP and PQPP."""
