#!/bin/sh
# Count one region's orders: region_totals.sh REGION ORDERS_CSV DIRECTORY
# What it writes to $TASK_OUTPUT as key=value lines becomes the outputs of its task.
# Exit code 75 means "this region has no orders today"; the DAG takes that as skipped, not as failed.
set -eu

region=$1 orders=$2 directory=$3

totals=$(awk -F, -v region="$region" 'NR > 1 && $1 == region { n++; cents += $3 } END { print n + 0, cents + 0 }' "$orders")
count=${totals% *} cents=${totals#* }

if [ "$count" -eq 0 ]; then
    echo "$region: no orders"
    exit 75
fi

mkdir -p "$directory"
printf '{"region": "%s", "orders": %s, "cents": %s}\n' "$region" "$count" "$cents" > "$directory/.$region.partial"
mv "$directory/.$region.partial" "$directory/$region.json"

printf 'region=%s\norders=%s\ncents=%s\n' "$region" "$count" "$cents" >> "${TASK_OUTPUT:-/dev/null}"
echo "$region: $count orders, $cents cents"
