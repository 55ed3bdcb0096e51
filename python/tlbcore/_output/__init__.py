"""What long calls leave and show: files written whole or not at all, tables, a bar, an orderly end."""
