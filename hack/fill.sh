#!/usr/bin/env bash
# Puts what it reads between the markers of a page: fill.sh PAGE NAME, for <!-- NAME --> and <!-- end of NAME -->.
set -euo pipefail
page=$1 begin="<!-- $2 -->" end="<!-- end of $2 -->"
for marker in "$begin" "$end"; do
    grep -qxF "$marker" "$page" || { echo "$page has no $marker" >&2; exit 1; }
done
new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
    sed "/^$begin\$/q" "$page"
    cat
    sed -n "/^$end\$/,\$p" "$page"
} > "$new"
cat "$new" > "$page"
