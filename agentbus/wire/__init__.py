"""What travels: identifiers, limits, the codec, headers and frames. No keys and no meaning live here."""
