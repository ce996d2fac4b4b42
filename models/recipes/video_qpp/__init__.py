"""The recipe of `video-qpp@2`: frozen sentence embeddings and small nets on VQPP and PQPP."""
