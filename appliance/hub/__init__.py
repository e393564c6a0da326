"""Hub: download models from huggingface.co or a mirror, and verify them before they are used."""
