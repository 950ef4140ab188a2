"""Flow matching as pure maths: process, times, guidance, reuse, sampler know no model and not one another."""
