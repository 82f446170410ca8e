"""Trained networks on the disk: `store` knows keys, locks and folders, `weights` the files."""
