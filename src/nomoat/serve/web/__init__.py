"""The web app: pages on the server's own models."""
