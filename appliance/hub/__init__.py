"""Hub: models from huggingface.co or a mirror of it, fetched so that nothing unverified is used."""
