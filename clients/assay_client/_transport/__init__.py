"""Transport: requests and replies as values, retries, endpoints, and the HTTP library."""
