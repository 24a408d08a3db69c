"""The VM port, its guest client, and the providers that implement them."""
