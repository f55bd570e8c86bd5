"""Transport: codecs, drivers and dialing; no actor is known here."""
