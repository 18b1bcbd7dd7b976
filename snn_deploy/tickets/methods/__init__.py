"""Ways to find a ticket: what is trained next, and what is taken from it; imports torch."""
