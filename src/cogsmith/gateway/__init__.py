"""Real Cog servers on this machine."""
