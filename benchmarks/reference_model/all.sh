#!/usr/bin/env bash
# From nothing to the reference model, its profile and the quality figures, on two CPU cores.
# Usage: benchmarks/reference_model/all.sh RUN_FOLDER. Every step goes on where it was stopped.
set -euo pipefail
run=${1:?the folder of the run}
here=benchmarks/results
catalog=profiles/catalog

python -m benchmarks.reference_model.train --out "$run" --minutes "${MINUTES:-90}"

# What heads need, on prompts with training text; block size 16, for contexts are short.
hplb profiles prompts --model "$run/model" --contexts 512,1024,2048 --prompts 4 -o "$run/prompts.jsonl"
hplb profiles measure --model "$run/model" --data "$run/prompts.jsonl" --contexts 512,1024,2048 \
    --block-tokens 16 --rows 128 --gradients --name reference-model -o "$catalog/models/reference-model.json"

# Dense accuracy on held-out seeds goes into the model card.
hplb evaluate --model "$run/model" -p reference-model --methods dense --contexts 512,1024,2048 \
    --samples 50 -o "$run/dense.json"
python -m benchmarks.reference_model.ship --run "$run" --dense "$run/dense.json"
hplb profiles prompts --model reference --contexts 2048 --prompts 1 --seed 2000000 --split held_out \
    -o "$catalog/reference/prompts.jsonl"

# The paper's Table 1 and figure 10, in our setting.
hplb profiles show reference-model --plot "$here/heads.png"
hplb evaluate --model reference -p reference-model --contexts 2048 --densities 0.1,0.2,0.3,0.5 \
    --samples 20 --device-type cpu -o "$here/quality.json" --plot "$here/frontier.png"
