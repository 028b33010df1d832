"""Fields and images: drawn scale by scale, from exact scores and from learned ones.

Run it as `python examples/fields_and_images.py [--quick] [--out FOLDER]`.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np

import scoresample as ss


def main(out: Path, *, quick: bool) -> None:
    size, num, training, epochs = (8, 200, 500, 2) if quick else (32, 1000, 8000, 12)
    keys = jax.random.split(jax.random.key(0), 8)
    # --8<-- [start:exact]
    law = ss.GaussianField(ss.power_law_spectrum((size, size), exponent=2.0))
    direct = ss.perturb(law, ss.VP())
    scales = ss.perturb_wavelets(law, ss.VP(), wavelet="db2")
    sampler = ss.ReverseSDE(num_steps=15)
    runs = {
        "reference": ss.exact_draws(law, key=keys[0], num_samples=num),
        "the field at once": ss.sample(direct, sampler, key=keys[1], num_samples=num, num_chains=1),
        "scale by scale": ss.sample(scales, sampler, key=keys[2], num_samples=num, num_chains=1),
    }
    for stage in runs["scale by scale"].info["stages"]:
        print(f"{stage['name']}: {stage['nfe']:.0f} evaluations at {stage['size']} numbers")
    # --8<-- [end:exact]

    # --8<-- [start:mala]
    runs["MALA on each scale"] = ss.sample(
        scales, ss.ParallelMALA(num_steps=100), key=keys[3], num_samples=num, num_chains=1
    )
    # --8<-- [end:mala]

    # --8<-- [start:learned]
    fields = law.sample(keys[4], training)
    learned = ss.fit_wavelet(
        fields,
        key=keys[5],
        wavelet="db2",
        levels=2,
        periodic=True,
        width=24,
        blocks=2,
        num_epochs=epochs,
        batch_size=64,
    )
    runs["learned"] = ss.sample(learned, ss.ReverseSDE(num_steps=30), key=keys[6], num_samples=num, num_chains=1)
    # --8<-- [end:learned]

    # --8<-- [start:keep]
    files = [out / f"scale-{number}.safetensors" for number in range(len(learned.stages))]
    for stage, file in zip(learned.stages, files, strict=True):
        ss.save_score(stage, file)
    learned = ss.WaveletPath(learned.transform, [ss.load_score(file) for file in files])
    # --8<-- [end:keep]

    # --8<-- [start:energies]
    energies = ss.fit_wavelet_energies(fields, levels=2, even=True)  # even: x and -x have the same law
    runs["local energies"] = ss.sample(
        energies, ss.ParallelMALA(num_steps=200), key=keys[7], num_samples=num, num_chains=1
    )
    # --8<-- [end:energies]

    # --8<-- [start:density]
    density = ss.CascadedDensity(scales)
    one = fields[0]
    print(f"log density {density.logdensity(one):.2f}, of the field's own law {law.logdensity(one):.2f}")
    print("by scale:", np.round(np.asarray(density.by_stage(one)), 1))
    # --8<-- [end:density]

    # --8<-- [start:report]
    comparison = ss.compare(runs, reference="reference")
    comparison.save(out / "fields.html")
    print(comparison)
    # --8<-- [end:report]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller fields, fewer draws and epochs")
    parser.add_argument("--out", type=Path, help="folder of the report")
    options = parser.parse_args()
    main(options.out or Path(tempfile.mkdtemp()), quick=options.quick)
