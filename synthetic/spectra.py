"""
Reflectance spectra of common materials as formulas, averaged over a sensor's bands.

    python -m synthetic.spectra --matrix                    # the bands -> XYZ numbers of raster/colour.py
    python -m synthetic.spectra --reflectances FILE.csv     # the reflectance file that ships with fake-chips; with --four that of
                                                            # sensors of blue, green, red and near infrared

The curves are parametric: sums of smooth steps and dips where plants, soils, water, paint and roofs have theirs. They are not
measurements. Bands are boxes between the edges that the operators publish; the colour matching functions are the analytic fit of Wyman,
Sloan and Shirley (2013) to CIE 1931; daylight is D65 in steps of 10 nm. Good enough for plausible colours and training data; not for
colorimetry.
"""

import sys

import numpy as np

from constants import BGRN_BANDS, WORLDVIEW_BANDS
from runtime.errors import run_program
from runtime.flags import Parser
from runtime.logs import print_result

WAVELENGTHS = np.arange(380, 1101, 2.0)  # nm

# nm, from the operators' data sheets
BAND_EDGES = {
    "pan": (450, 800),
    "coastal": (400, 450),
    "blue": (450, 510),
    "green": (510, 580),
    "yellow": (585, 625),
    "red": (630, 690),
    "rededge": (705, 745),
    "nir1": (770, 895),
    "nir2": (860, 1040),
    "nir": (780, 920),  # of four-band sensors such as GeoEye-1
}
D65_WHITE = (0.95047, 1.0, 1.08883)
# relative power at 380, 390, … 780 nm
D65 = (
    49.98, 54.65, 82.75, 91.49, 93.43, 86.68, 104.86, 117.01, 117.81, 114.86, 115.92, 108.81, 109.35, 107.80, 104.79,
    107.69, 104.41, 104.05, 100.00, 96.33, 95.79, 88.69, 90.01, 89.60, 87.70, 83.29, 83.70, 80.03, 80.21, 82.28,
    78.28, 69.72, 71.61, 74.35, 61.60, 69.89, 75.09, 63.59, 46.42, 66.81, 63.38,
)


def step(centre, width):
    """0 at short, 1 at long wavelengths; half way at `centre` nm."""
    return 1 / (1 + np.exp(-(WAVELENGTHS - centre) / width))


def bump(centre, width):
    return np.exp(-(((WAVELENGTHS - centre) / width) ** 2) / 2)


def vegetation(rng):
    green, plateau = rng.uniform(0.02, 0.12), rng.uniform(0.15, 0.6)
    base = rng.uniform(0.01, 0.06)
    edge = step(rng.uniform(700, 725), rng.uniform(9, 16))
    return base + green * bump(553, 33) + plateau * edge * (1 - 0.08 * bump(970, 35))


def dry_plants(rng):
    return rng.uniform(0.04, 0.1) + rng.uniform(0.1, 0.4) * step(rng.uniform(560, 660), rng.uniform(60, 120))


def soil(rng):
    iron = rng.uniform(0, 0.5)
    rise = rng.uniform(0.1, 0.55) * step(rng.uniform(540, 680), rng.uniform(50, 130))
    return (rng.uniform(0.02, 0.12) + rise) * (1 - iron * bump(500, 60)) * (1 - 0.15 * bump(900, 60))


def water(rng):
    haze = rng.uniform(0.01, 0.08) * (WAVELENGTHS / 450) ** -rng.uniform(1.5, 4)
    mud = rng.uniform(0, 0.12) * bump(rng.uniform(520, 620), 90)
    return (haze + mud) * (1 - 0.85 * step(730, 25)) + 0.004


def mineral(rng):
    """Concrete, asphalt, gravel, sand: nearly flat."""
    return rng.uniform(0.04, 0.6) * (1 + rng.uniform(-0.1, 0.5) * step(rng.uniform(450, 620), 70))


def paint(rng):
    """Roofs, cars, tarpaulins, boats: one or two smooth edges anywhere."""
    low, high = sorted(rng.uniform(0.03, 0.8, size=2))
    curve = step(rng.uniform(430, 680), rng.uniform(8, 40))
    if rng.random() < 0.5:
        curve = 1 - curve
    return low + (high - low) * np.maximum(curve, rng.uniform(0, 1) * step(rng.uniform(680, 800), 25))


def snow(rng):
    return rng.uniform(0.5, 0.95) * (1 - rng.uniform(0.02, 0.3) * step(rng.uniform(850, 1000), 60))


MATERIALS = {
    "vegetation": vegetation, "dry plants": dry_plants, "soil": soil, "water": water,
    "mineral": mineral, "paint": paint, "snow": snow,
}


def make_spectra(count, seed=0):
    """[(material, (len(WAVELENGTHS),) reflectance 0..1)]: materials in turn, parameters at random."""
    rng = np.random.default_rng(seed)
    names = list(MATERIALS)
    return [(names[i % len(names)], np.clip(MATERIALS[names[i % len(names)]](rng), 0.001, 1)) for i in range(count)]


def through_bands(spectrum, bands):
    """Mean reflectance between each band's edges."""
    inside = [(WAVELENGTHS >= BAND_EDGES[b][0]) & (WAVELENGTHS <= BAND_EDGES[b][1]) for b in bands]
    return np.array([spectrum[i].mean() for i in inside])


def matching_functions():
    """(3, len(WAVELENGTHS)): CIE 1931 x, y, z under D65, scaled so that a white surface is D65_WHITE."""

    def lobe(height, centre, left, right):
        width = np.where(WAVELENGTHS < centre, left, right)
        return height * np.exp(-(((WAVELENGTHS - centre) / width) ** 2) / 2)

    x = lobe(1.056, 599.8, 37.9, 31.0) + lobe(0.362, 442.0, 16.0, 26.7) + lobe(-0.065, 501.1, 20.4, 26.2)
    y = lobe(0.821, 568.8, 46.9, 40.5) + lobe(0.286, 530.9, 16.3, 31.1)
    z = lobe(1.217, 437.0, 11.8, 36.0) + lobe(0.681, 459.0, 26.0, 13.8)
    light = np.interp(WAVELENGTHS, np.arange(380, 781, 10), D65, right=0)
    seen = np.stack([x, y, z]) * light
    return seen * (np.array(D65_WHITE) / seen.sum(1))[:, None]


def fit_bands_to_xyz(bands, count=4000, seed=0):
    """(len(bands), 3): reflectance row vector @ matrix = XYZ. Least squares with coefficients >= 0, white kept white.

    White is kept by a heavy extra sample (all bands 1 -> D65_WHITE). Bands beyond 700 nm, which no eye sees, stay 0.
    """
    spectra = np.stack([s for _, s in make_spectra(count, seed)])
    samples = np.stack([through_bands(s, bands) for s in spectra])
    targets = spectra @ matching_functions().T
    samples = np.concatenate([samples, np.full((1, len(bands)), 1e3)])
    targets = np.concatenate([targets, 1e3 * np.array([D65_WHITE])])
    seen = [i for i, b in enumerate(bands) if BAND_EDGES[b][0] < 700]
    matrix = np.zeros((len(bands), 3))
    gram, right = samples[:, seen].T @ samples[:, seen], samples[:, seen].T @ targets
    for column in range(3):
        matrix[seen, column] = non_negative_solution(gram, right[:, column])
    return matrix


def non_negative_solution(gram, right):
    """x >= 0 that minimises x' gram x / 2 - right' x: tries every set of positive entries, which for few bands is quick."""
    size, best, best_value = len(right), np.zeros(len(right)), 0.0
    for chosen in range(1, 1 << size):
        index = [i for i in range(size) if chosen >> i & 1]
        x = np.zeros(size)
        x[index] = np.linalg.lstsq(gram[np.ix_(index, index)], right[index], rcond=None)[0]
        value = x @ gram @ x / 2 - right @ x
        if (x >= 0).all() and value < best_value:
            best, best_value = x, value
    return best


def reflectance_lines(count=84, seed=0, bands=WORLDVIEW_BANDS):
    """Lines of a reflectance file: pan and the bands, x 10 000, and what they are."""
    lines = []
    for name, spectrum in make_spectra(count, seed):
        values = through_bands(spectrum, ("pan", *bands))
        lines.append(",".join(str(round(v * 10_000)) for v in values) + f",{name} (formula)")
    return lines


def main(argv=None):
    parser = Parser(prog="synthetic.spectra", description=__doc__)
    parser.add_argument("--matrix", action="store_true", help="print the fitted bands -> XYZ matrices")
    parser.add_argument("--reflectances", metavar="FILE", help="write the reflectance file")
    parser.add_argument("--four", action="store_true", help="of blue, green, red and near infrared in place of WorldView's eight bands")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if args.matrix:
        for bands in (WORLDVIEW_BANDS, BGRN_BANDS):
            for band, row in zip(bands, fit_bands_to_xyz(bands), strict=True):
                print_result(f"{band:8s} ({row[0]:.4f}, {row[1]:.4f}, {row[2]:.4f})")
            print_result("")
    if args.reflectances:
        with open(args.reflectances, "w", encoding="utf-8") as file:
            file.write("\n".join(reflectance_lines(bands=BGRN_BANDS if args.four else WORLDVIEW_BANDS)) + "\n")


if __name__ == "__main__":
    run_program(main)
