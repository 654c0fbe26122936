"""The store's own API: the services of Exoware's store, by the Connect protocol."""
