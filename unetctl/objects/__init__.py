"""Objects: from the probabilities of background, interior and border to one number for every object."""
