"""A larger model that helps to write lessons, if the person has named one."""

from mlx_plastic.sleep.teacher.config import TeacherConfig
from mlx_plastic.sleep.teacher.pairs import Pair, parse_pairs
from mlx_plastic.sleep.teacher.teacher import Bill, Teacher, open_teacher

__all__ = ["Bill", "Pair", "Teacher", "TeacherConfig", "open_teacher", "parse_pairs"]
