"""From what a person says to the text that a model reads.

chat       messages through a Jinja template, in a sandbox
templates  the named templates: files in `data/`, one each
tokens     what a tokenizer makes of such a text, and of the texts that end an answer
messages   one instruction, or questions with their answers, as messages
"""
