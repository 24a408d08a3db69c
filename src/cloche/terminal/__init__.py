"""A person's terminal joined to a program in a guest, here or in another process of the same user."""
