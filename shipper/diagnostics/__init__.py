"""Answers to what operators ask."""
