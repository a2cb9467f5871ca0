"""The second engine: vLLM behind the same requests. Nothing here is imported where vLLM is not asked for."""
