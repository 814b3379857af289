import pytest
import torch
from draws import randn

from otgen.ot import SemiDiscreteOT


@pytest.fixture(scope="module")
def fitted():
    """A map onto 60 points in three dimensions; some are duplicates, some have no weight."""
    y = 5 * randn(60, 3) + 20
    y[50:] = y[:10]
    nu = torch.ones(60)
    nu[20:25] = 0
    return SemiDiscreteOT("normal", seed=3, progress=False).fit(y, nu)
