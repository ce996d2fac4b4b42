"""The NLI checker: claims of an answer against evidence."""
