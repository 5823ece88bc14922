"""The templates "Start here", one layout for every family of models: `python dev.py templates` writes them anew."""
