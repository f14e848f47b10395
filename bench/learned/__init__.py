"""The parts of bench/learning.py: fresh prompts, the stages that learn, and the figure."""
