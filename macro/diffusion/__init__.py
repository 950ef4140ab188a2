"""Flow matching as pure maths: process, times, guidance, sampler know no model and not one another."""
