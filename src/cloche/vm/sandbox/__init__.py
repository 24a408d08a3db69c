"""The sandbox: no VM, the host's own kernel, the same agent in namespaces."""
