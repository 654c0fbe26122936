"""Messages of the store's own API, made from proto/ by scripts/protos; nobody edits them."""
