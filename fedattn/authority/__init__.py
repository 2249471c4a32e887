"""The authority of a network: who is who, by certificates it issues and takes back."""
