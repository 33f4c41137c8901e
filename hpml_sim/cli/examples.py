"""What the help of each verb shows as examples; the tests parse them all."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": (
        "hpml-sim compare --targets cpu h200 pcm-hermes loihi --out runs/first",
        "hpml-sim estimate llama-3-8b --targets h200",
        "hpml-sim compare --help",
    ),
    "compare": (
        "hpml-sim compare --targets cpu pcm-hermes loihi --model mlp --data digits --out runs/first",
        "hpml-sim compare --targets pcm-hermes --model mine.py:network --data mine.py:data --seeds 3",
        "hpml-sim compare --targets cpu loihi --dry-run",
    ),
    "sweep": (
        "hpml-sim sweep --targets pcm-hermes --search-space adc_bits=4,6,8 model.width=32,128 --out runs/bits",
        "hpml-sim sweep --targets pcm-hermes --search-space output_noise=0.01..0.1:log --trials 20",
    ),
    "search": (
        "hpml-sim search --targets pcm-hermes --search-space adc_bits=4..8 model.width=16..256 --trials 30",
        "hpml-sim search --targets loihi --search-space steps=2..25 neuron.beta=0.8..0.99 --trials 50",
    ),
    "assign": (
        "hpml-sim assign --model g2p --data word-phonemes --targets pcm-design-study --chips 3",
        "hpml-sim assign --targets pcm-hermes --search-space adc_bits=4,8 --loses-at-most 0.02 --times '1 month'",
    ),
    "run": ("hpml-sim run run.toml", "hpml-sim run run.toml --dry-run", "hpml-sim run run.toml --chips 5 --out runs/5"),
    "init": ("hpml-sim init", "hpml-sim init mine.toml"),
    "report": ("hpml-sim report runs/first", "hpml-sim report runs/first --out first.html"),
    "doctor": ("hpml-sim doctor",),
    "cards": ("hpml-sim cards",),
    "cards show": ("hpml-sim cards show pcm-hermes",),
    "cards check": ("hpml-sim cards check my-chip.toml",),
    "networks": ("hpml-sim networks",),
    "networks get": ("hpml-sim networks get smollm2-135m", "hpml-sim networks get all"),
    "data": ("hpml-sim data",),
    "data get": ("hpml-sim data get mnist-5k", "hpml-sim data get speech spoken-digits"),
    "estimate": (
        "hpml-sim estimate resnet50 --targets h200 pcm-hermes --batch 8",
        "hpml-sim estimate llama-3-8b --targets h200 --phase decode --context 4096 --precision bf16",
        "hpml-sim estimate mlp --targets loihi --data digits",
        "hpml-sim estimate mine.py:network --targets cpu --input-shape 3 32 32",
    ),
    "validate": ("hpml-sim validate", "hpml-sim validate --strict"),
    "profile": ("hpml-sim profile mlp --batch 64", "hpml-sim profile mine.py:network --input-shape 3 32 32"),
    "roofline": ("hpml-sim roofline", "hpml-sim roofline --targets h200 --model cnn --out roofline.svg"),
    "completion": ('eval "$(hpml-sim completion bash)"',),
}
"""Verb -> commands; "" is hpml-sim itself."""
