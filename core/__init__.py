"""The billing package: no web framework below this line; see each subpackage for its map."""
