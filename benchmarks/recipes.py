"""What the choices of the recipe ``fast`` and of the curriculum's controller are worth, at equal compute.

    python benchmarks/recipes.py --suite recipes --variant adamw --seeds 3 -o optimisers
    python benchmarks/recipes.py --suite curriculum -o curriculum

Two more suites for ``rdtf compare``, with its arguments and options.
"""

from __future__ import annotations

import sys

from rdtf.cli import app
from rdtf.research.compare.suites import LITTLE, NEAREST, SUITES, Claim, Suite, TableSpec, Variant

RECIPES = {
    "fast": Variant("the recipe `fast`"),
    "predict-clip": Variant(
        "the clip predicted, weights up to those at t = 0.6", {"objective": {"prediction": "sample", "min_t": 0.6}}
    ),
    "predict-clip-even": Variant(
        "the clip predicted, all noise levels weigh alike", {"objective": {"prediction": "sample", "min_t": 1.0}}
    ),
    "weights-0.3": Variant("weights up to those at t = 0.3", {"objective": {"min_t": 0.3}}),
    "weights-0.6": Variant("weights up to those at t = 0.6", {"objective": {"min_t": 0.6}}),
    "ddpm-v": Variant(
        "DDPM, v, min-SNR 5",
        {"objective": {"path": "ddpm", "prediction": "v_prediction", "min_snr": 5.0}, "residual_to_known": False},
    ),
    "ddpm-v-plain": Variant(
        "DDPM, v, no weighting",
        {"objective": {"path": "ddpm", "prediction": "v_prediction"}, "residual_to_known": False},
    ),
    "ddpm-epsilon": Variant(
        "DDPM, epsilon", {"objective": {"path": "ddpm", "prediction": "epsilon"}, "residual_to_known": False}
    ),
    "no-residual": Variant("no residual to given frames", {"residual_to_known": False}),
    "logit-mean-0": Variant("logit-normal mean 0", {"objective": {"logit_mean": 0.0}}),
    "uniform-t": Variant("uniform noise levels", {"objective": {"uniform_fraction": 1.0}}),
    "adamw": Variant("AdamW alone", {"muon": False}),
    "muon-3": Variant("three iterations of Muon", {"muon_iterations": 3}),
    "muon-4": Variant("four iterations of Muon", {"muon_iterations": 4}),
    "batch-8": Variant("batch 8", {"batch_size": 8}),
    "batch-32": Variant("batch 32", {"batch_size": 32}),
    "lr-half": Variant("half the learning rates", {"lr": 1e-3, "muon_lr": 0.01}),
    "lr-double": Variant("twice the learning rates", {"lr": 4e-3, "muon_lr": 0.04}),
    "constant-lr": Variant("no decay at the end", {"decay": False}),
    "ema-099": Variant("averages of 0.99", {"ema_decay": 0.99}),
    "ema-09999": Variant("averages of 0.9999", {"ema_decay": 0.9999}),
    "text-often": Variant("text to video three times as often", {"task_weights": {"text_to_video": 3.0}}),
    "stills-as-any": Variant("stills drawn like other stickers", {"still_fraction": 0.0}),
    "stills-half": Variant("half of each step stills", {"still_fraction": 0.5}),
    "even-spacing": Variant("evenly spaced frames alone", {"cluster_fraction": 0.0}),
    "curriculum-none": Variant("no curriculum", {"curriculum": "none"}),
}
RECIPE_TABLE = TableSpec(
    "One thing changed",
    tuple(RECIPES),
    (
        "it2v.fd",
        "it2v.mmd",
        "it2v.psnr",
        "t2v.mmd",
        "t2v.body",
        "t2v.action",
        "interpolation.psnr",
        "forward.psnr",
        "cost.steps",
    ),
    tuple(Claim("fast", name, NEAREST, "ours") for name in RECIPES if name != "fast"),
)

CONTROLLERS = {
    "adaptive-normalised": Variant("ours (the default)"),
    "constant": Variant("ours, always the hardest", {"curriculum": "adaptive-constant"}),
    "reversed": Variant("ours, struggling = harder", {"curriculum": "adaptive-reversed"}),
    "adaptive": Variant("the paper's", {"curriculum": "adaptive"}),
    "linear": Variant("the schedule alone", {"curriculum": "linear"}),
    "none": Variant("none", {"curriculum": "none"}),
}
DIFFICULTIES = tuple(f"difficulty.{i}" for i in range(5))
CURRICULUM_TABLES = (
    TableSpec(
        "Held-out loss and what is made",
        tuple(CONTROLLERS),
        ("heldout.loss", "it2v.fd", "it2v.mmd", "t2v.mmd", "it2v.action", "interpolation.psnr", "forward.psnr"),
        tuple(
            Claim("adaptive-normalised", name, (measure,), "ours")
            for name in CONTROLLERS
            if name != "adaptive-normalised"
            for measure in ("heldout.loss", "it2v.mmd", "t2v.mmd", "interpolation.psnr")
        ),
    ),
    TableSpec("Steps at each difficulty", ("adaptive-normalised", "reversed", "adaptive"), DIFFICULTIES),
)

if __name__ == "__main__":
    SUITES.update(
        (suite.name, suite)
        for suite in (
            Suite(
                "curriculum",
                **LITTLE,
                variants=CONTROLLERS,
                reference="adaptive-normalised",
                seeds=(0, 1, 2),
                tables=CURRICULUM_TABLES,
                steps=300,
            ),
            Suite(
                "recipes",
                **LITTLE,
                variants=RECIPES,
                reference="fast",
                seeds=(0, 1),
                tables=(RECIPE_TABLE,),
                steps=200,
            ),
        )
    )
    app(["compare", *sys.argv[1:]])
