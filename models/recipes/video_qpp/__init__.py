"""How `video-qpp@1` was made: frozen sentence embeddings and linear models on VQPP and PQPP."""
