"""From a recipe or an archive to a root filesystem, and the store that keeps them."""
