#!/usr/bin/env bash
# Removes what runs make: logs, caches, tables, figures, reports. Finished cells and run records
# took hours to compute, so they go only with "1" as the first argument. READMEs, the committed
# reference snapshot and the environment always stay.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
confirmed=${1:-}

for python in .venv/bin/python .venv-gpu/bin/python; do
    if [[ -x $python ]]; then
        "$python" -m blockwise.run.run_lock --only-look || exit 2
        break
    fi
done
rm -rf logs .mypy_cache .ruff_cache .pytest_cache .hypothesis
find workflow envs -name __pycache__ -type d -prune -exec rm -rf {} +
kept=0
for folder in results/*/ figures/*/; do
    [[ -d $folder ]] || continue
    name=$(basename "$folder")
    [[ $name == reference ]] && continue
    if [[ $folder == figures/* || $confirmed == 1 ]]; then
        rm -rf "$folder"
    elif [[ $name != bench ]]; then
        rm -rf "${folder}tables" "${folder}report" "${folder}report.html" "${folder}MANIFEST.json" \
            "${folder}crate" "${folder}".crate.*
        kept=1
    fi
done
echo "clean: removed logs, caches, tables and figures"
if ((kept)); then
    echo "clean: kept finished cells and runs; make clean CONFIRM=1 removes them too"
fi
