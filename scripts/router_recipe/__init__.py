"""What the router's seed set is made of: families of templates for each route, and what fills their slots."""
