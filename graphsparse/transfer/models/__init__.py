"""Teachers and students of links, and how they are trained."""
