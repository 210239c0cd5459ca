"""The infinitesimal jackknife beside a bootstrap that refits every resample."""

import torch

from benchmarks.limits import Figure
from benchmarks.peers import Sides, beside
from workers.kernels.influence import influences, standard_error
from workers.kernels.moments import MomentAccumulator
from workers.kernels.spectrum import fit_alpha_req, rankme, spectrum

_COUNT, _WIDTH = 1500, 128
_BOOTSTRAPS = 100


def figures(device: str) -> list[Figure]:
    """Ratio of a bootstrap's time to ours."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, _WIDTH + 1, dtype=torch.float32).rsqrt()
    features = (torch.randn(_COUNT, _WIDTH, generator=generator) * scale).to(device)

    def fitted(rows: torch.Tensor) -> tuple[float, float]:
        moments = MomentAccumulator()
        moments.update(rows)
        eigenvalues = spectrum(moments).eigenvalues
        return rankme(eigenvalues), fit_alpha_req(eigenvalues, len(rows)).value

    def jackknife() -> None:
        moments = MomentAccumulator()
        moments.update(features)
        found = spectrum(moments)
        for influence in influences(features, found, fit_alpha_req(found.eigenvalues, _COUNT)):
            standard_error(influence)

    def bootstrap() -> None:
        draws = [
            torch.randint(0, _COUNT, (_COUNT,), generator=generator) for _ in range(_BOOTSTRAPS)
        ]
        torch.tensor([fitted(features[draw.to(device)]) for draw in draws]).std(dim=0)

    what = f"standard errors, {_COUNT} × {_WIDTH}, against a bootstrap of {_BOOTSTRAPS}"
    return beside([Sides(what, jackknife, bootstrap, "≥ 10", rounds=3)])
