"""From what a person says to the text that a model reads.

chat       messages through a Jinja template, in a sandbox
templates  the named templates: files in `data/`, one each
messages   one instruction, or questions with their answers, as messages
"""
