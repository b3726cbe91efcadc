"""The built-in plugins. Each folder is one plugin, reached only through its entry point."""
