"""What an experiment is given in tests: the fast settings of a recipe, and smaller ones."""

import torch

from otgen.experiments import recipe as recipes
from otgen.experiments.experiment import Context


def context_of(name, tmp_path, **changed):
    recipe = recipes.load(name)
    assert changed.keys() <= recipe.settings.keys()
    return Context(recipe.sized(True) | changed, 0, torch.device("cpu"), tmp_path)
