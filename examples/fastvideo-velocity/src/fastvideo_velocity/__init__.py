"""The method velocity."""
