"""The command line: a person's words in, files out. It reaches the plugin only through the package's public face."""
