"""The parts that model.py puts together."""
