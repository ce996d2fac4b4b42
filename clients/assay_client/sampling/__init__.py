"""Best-of-n sampling: from a chat endpoint, and until the server is confident of the best."""
