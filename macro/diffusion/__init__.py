"""Flow matching as pure maths: path, timesteps and sampler (`flow`), guidance, step caching. No model is known here."""
