"""What a model writes about the books: prompts, steps, the client, and the store of its answers."""
