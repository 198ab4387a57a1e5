"""The committed recipe of nano: what it reads while it learns, generated from a seed."""
