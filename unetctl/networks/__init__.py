"""Networks: what they need of their input (`spec`, free of torch), how they compute, how they are stored."""
