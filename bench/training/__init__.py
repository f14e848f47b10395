"""What bench/train.py is made of: cases and settings, the sides that train, and the figures made of it."""
