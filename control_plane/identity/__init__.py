"""Who is calling: bearer tokens verified into a `Principal`. The only user of python-jose."""
