"""The HTTP routes: each reads a request, calls one thing, and presents what came of it."""
