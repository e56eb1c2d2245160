"""Reads Python sources: follows clients of Anthropic from where they are made to where they are called."""
